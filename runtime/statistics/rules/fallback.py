"""The cascade from where the router says (docs/mathematics.md, theorem 11): a level that the router chose and that is
not sure enough of a class falls back to the next smaller one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dualsmooth.runtime.statistics.bounds import Array
from dualsmooth.runtime.statistics.routes import MEDIAN
from dualsmooth.runtime.statistics.rules.confidence import Cascade, Confidence
from dualsmooth.runtime.statistics.rules.plan import RIVAL_SHARE, Claim, Plan, exclusion_claims
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR, SELECTION, Request, Requests, Stream, Tally

ROUTER, LABEL, SILENT = 0.3, 0.6, 0.6
"""Shares of alpha: for where the router begins and for the label, both divided among the levels that lower ones may
rest on; and for "no other class answers" at a level above the router's."""


@dataclass(frozen=True)
class Fallback(Confidence):
    """The router's level answers where its most probable class has at least the probability `least`, else the next
    smaller one that has such a class does, else the smallest. `interval` is nearly its case of a small `least`; with
    a router that always names the largest level it is `confidence`."""

    kind: ClassVar[str] = "fallback"
    form: ClassVar[str] = "fallback:P"
    legend: ClassVar[Legend] = Legend(
        kind, "the router's noise level, or where that is not sure enough of a class, the next smaller one", colour=6
    )
    default_route: ClassVar[str] = MEDIAN
    routes: ClassVar[bool] = True
    may_ask_all: ClassVar[bool] = True

    def streams(self, terms: Terms) -> tuple[int, int]:
        return PlannedRule.streams(self, terms)

    def subject(self, terms: Terms) -> str:
        return (
            f"the cascade from the {terms.route_kind} of the estimator's votes: the largest sigma from there down at "
            f"which a class has at least {self.shares_of(terms)} of the votes answers"
        )

    def plan(self, terms: Terms, route: int, label: int, begin: int | None = None) -> Plan:
        """As of `PlannedRule`: `route` is the level that answers, `begin` the router's (None: the same)."""
        plan = PlannedRule.plan(self, terms, route, label)
        if not plan.routed:
            return plan
        begin = route if begin is None else begin
        claims = tuple(self.claims(terms, route, label, begin))
        return _Descent(**{**vars(plan), "claims": claims}, rule=self, begin=begin)

    def planned(self, terms: Terms, tally: Tally) -> Plan:
        route, counts = self.guessed(terms, tally)
        return self.plan(terms, route, int(np.argmax(counts)), PlannedRule.guessed_route(self, terms, tally))

    def claims(self, terms: Terms, route: int, label: int, begin: int | None = None) -> list[Claim]:
        """A level below the one that answers rests on any level in between: on the router not beginning below that
        one, and on the label there; it has what is left for its own claims. A level above the router's rests on the
        router not beginning there, or on its silence about other classes; one between, which is silent, on that."""
        alpha, steps, begin = terms.alpha, len(terms.sigmas) - 1, route if begin is None else begin
        claims = exclusion_claims(terms.route_kind, len(terms.sigmas), begin, ROUTER / steps * alpha)
        for level in range(len(terms.sigmas)):
            mine, others = LABEL / steps, RIVAL_SHARE
            if level == 0:
                mine, others = (1.0 if route == 0 else RIVAL_SHARE) * np.array([1 - RIVAL_SHARE, RIVAL_SHARE])
            elif level > route:
                mine, others = RIVAL_SHARE, SILENT if level > begin else 1 - RIVAL_SHARE
            claims.append(Claim(CLASSIFIER, level, (label,), float(mine * alpha)))
            claims.append(Claim(CLASSIFIER, level, (label,), float(others * alpha), rivals=True))
        return claims

    def selections(self, terms: Terms, tally: Tally) -> Requests:
        """The selection votes of the router, then of its level, then of the next smaller one, until one is sure."""
        yield [Request(Stream(ESTIMATOR, 0, SELECTION), terms.budget.selection)]
        for level in reversed(range(PlannedRule.guessed_route(self, terms, tally) + 1)):
            yield [Request(Stream(CLASSIFIER, level, SELECTION), terms.budget.selection)]
            if self._answers(terms, tally, level):
                return

    def guessed_route(self, terms: Terms, tally: Tally) -> int:
        begin = PlannedRule.guessed_route(self, terms, tally)
        return next(level for level in reversed(range(begin + 1)) if self._answers(terms, tally, level))


@dataclass(frozen=True)
class _Descent(Cascade):
    """The plan of `Fallback`."""

    begin: int = 0

    def exclusion(self, lower: Array) -> Array:
        """e_s of each level s [K], from the bounds of all claims: closer to the input than e_s, the cascade does not
        come to s (it begins below, or a level above s answers, where it begins or lower), or no class but the label
        reaches `least` there. 0 at the smallest level where it is the guessed one: it answers whatever it is sure
        of."""
        asked, silent = self.margins(lower)
        left = Plan.exclusion(replace(self, route=self.begin), lower)  # how far the router stays away from each level
        answers = [min(left[:a].min(), asked[a]) for a in range(1, self.route + 1)]
        bounds = []
        for s in range(len(self.sigmas)):
            below = left[s:].min() if s > self.begin else -math.inf
            bounds.append(max(below, silent[s], *answers[s:]))
        return np.asarray(np.maximum(0.0, np.array(bounds)), np.float64)
