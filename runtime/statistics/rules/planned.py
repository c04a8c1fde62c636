"""Rules that rest on a plan: they state claims, and the geometry of `Plan` turns the bounds of claims into the radius.

What to sample next is what can still raise the level that now bounds the radius.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.rounding import round_down, stated
from dualsmooth.runtime.statistics.bounds import Array
from dualsmooth.runtime.statistics.budgets.budget import Budget
from dualsmooth.runtime.statistics.routes import guess_route
from dualsmooth.runtime.statistics.rules.plan import Claim, Plan, label_claims
from dualsmooth.runtime.statistics.rules.rule import Outcome, Rule, Terms
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATION,
    ESTIMATOR,
    SELECTION,
    Counts,
    Request,
    Requests,
    Stream,
    Tally,
)


@dataclass(frozen=True)
class PlannedRule(Rule):
    """A rule that is known by its claims."""

    takes_coarser: ClassVar[bool] = True
    derives: ClassVar[bool] = True
    """Whether its claims are about classes alone, so that pairs of votes carry them over to other networks."""

    @abstractmethod
    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        """The claims of one certificate where several levels may be the route, given the guessed route and label.
        Every level spends at most alpha on those that bear on it."""

    def claims_of_one(self, terms: Terms, level: int, label: int) -> list[Claim]:
        """The claims where one level serves all inputs (Cohen et al. 2019): all of alpha for its label."""
        return label_claims(level, label, terms.classes, terms.alpha)

    def plan(self, terms: Terms, route: int, label: int) -> Plan:
        """The claims and their geometry. With probability at least 1 - alpha, its radius is not above the true one."""
        routed = self.only_level(terms) is None
        claims = (self.claims if routed else self.claims_of_one)(terms, route, label)
        if terms.among:
            claims = [replace(claim, event=terms.among) if claim.rivals else claim for claim in claims]
        return Plan(terms.sigmas, terms.sigma_e, terms.route_kind, route, label, tuple(claims), routed)

    def subject(self, terms: Terms) -> str:
        return f"the dual classifier, routed by the {terms.route_kind} of the estimator's votes"

    def selections(self, terms: Terms, tally: Tally) -> Requests:
        """Ask for the selection votes that guess the route and the label."""
        selection = terms.budget.selection
        if self.only_level(terms) is None:
            yield [Request(Stream(ESTIMATOR, 0, SELECTION), selection)]
        yield [Request(Stream(CLASSIFIER, self.guessed_route(terms, tally), SELECTION), selection)]

    def guessed(self, terms: Terms, tally: Tally) -> tuple[int, Counts]:
        """The route that the selection votes guess, and those of the classifier at it [classes], which guess the
        label. Raises `CertificateError` where some are missing."""
        route = self.guessed_route(terms, tally)
        return route, selected(terms, tally, Stream(CLASSIFIER, route, SELECTION))

    def requests(self, terms: Terms, tally: Tally) -> Requests:
        yield from self.selections(terms, tally)
        plan = self.planned(terms, tally)
        evidence = Evidence(plan, terms.budget)
        wanted = [s for s in evidence.streams() if s.stage == ESTIMATOR or s.level == plan.route]
        while wanted:
            looks = {stream: len(tally.looks.get(stream, [])) for stream in wanted}
            yield [Request(stream, terms.budget.looks[look]) for stream, look in looks.items()]
            for stream, look in looks.items():
                evidence.update(tally, stream, look)
            wanted = _bottleneck(evidence, tally)

    def settle(self, terms: Terms, tally: Tally) -> Outcome:
        plan = self.planned(terms, tally)
        return outcome_of(plan, bounds_of(plan, terms.budget, tally))

    def best_radius(self, terms: Terms) -> float:
        level = self.only_level(terms)
        routes = range(len(terms.sigmas)) if level is None else [level]
        plans = (self.plan(terms, route, 0) for route in routes)
        return max(plan.radius(Evidence(plan, terms.budget).reachable) for plan in plans)

    def guessed_route(self, terms: Terms, tally: Tally) -> int:
        level = self.only_level(terms)
        if level is not None:
            return level
        return guess_route(selected(terms, tally, Stream(ESTIMATOR, 0, SELECTION)), terms.route_kind)

    def planned(self, terms: Terms, tally: Tally) -> Plan:
        """The plan for what the selection votes guess. Raises `CertificateError` where they are missing."""
        route, counts = self.guessed(terms, tally)
        return self.plan(terms, route, int(np.argmax(counts)))


class Evidence:
    """The bounds of a plan's claims as looks are taken: running best, and what is still reachable."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        self.plan, self.budget = plan, budget
        self.alphas = np.array([claim.alpha for claim in plan.claims])
        self.lower: Array = np.zeros(len(plan.claims))
        self.reachable: Array = budget.reachable(np.zeros(len(plan.claims)), -1, self.alphas)
        self._of = {
            stream: [i for i, c in enumerate(plan.claims) if (c.stage, c.level) == (stream.stage, stream.level)]
            for stream in dict.fromkeys(Stream(c.stage, c.level, ESTIMATION) for c in plan.claims)
        }

    def update(self, tally: Tally, stream: Stream, look: int, *, forecast: bool = True) -> None:
        """Take look number `look` (from 0) of a stream into account. All bounds of all looks hold together, so the
        best one so far counts. `forecast=False` leaves `reachable` as it is."""
        mine = self._of.get(stream, [])
        if not mine:
            return
        counts = tally.looks[stream][look]
        if int(counts.sum()) != self.budget.looks[look]:
            raise CertificateError(
                f"look {look} of {'/'.join(map(str, stream))} has {counts.sum()} votes; the budget {self.budget} fixes "
                f"{self.budget.looks[look]}"
            )
        hits = np.array([self.plan.claims[i].hits_of(tally, stream, look) for i in mine], np.float64)
        self.lower[mine] = np.maximum(self.lower[mine], self.budget.lower(hits, look, self.alphas[mine]))
        if forecast:
            more = look < len(self.budget.looks) - 1
            reach = self.budget.reachable(hits, look, self.alphas[mine]) if more else self.lower[mine]
            self.reachable[mine] = np.maximum(self.lower[mine], reach)

    def hoped(self, stream: Stream) -> Array:
        """The bounds [claims] if all further votes of this stream alone were what its claims say."""
        hoped = self.lower.copy()
        hoped[self._of[stream]] = self.reachable[self._of[stream]]
        return hoped

    def streams(self) -> list[Stream]:
        return list(self._of)


def bounds_of(plan: Plan, budget: Budget, tally: Tally) -> Array:
    """The lower bounds [claims] that all looks in a tally give the claims of a plan; 0 where there are no votes. Each
    fails with probability at most its claim's alpha. Raises `CertificateError` where looks do not follow the budget."""
    evidence = Evidence(plan, budget)
    for stream in evidence.streams():
        for look in range(len(tally.looks.get(stream, []))):
            if look >= len(budget.looks):
                raise CertificateError(f"{'/'.join(map(str, stream))} has more looks than the budget {budget} fixes")
            evidence.update(tally, stream, look, forecast=False)
    return evidence.lower


def outcome_of(plan: Plan, lower: Array) -> Outcome:
    """What a plan proves where its claims have these lower bounds [claims]; radii are rounded down."""
    exclusion, class_radii = plan.exclusion(lower), plan.class_radii(lower)
    radius = round_down(plan.radius(lower))
    others = np.delete(exclusion, plan.route)
    return Outcome(
        label=plan.label if radius > 0 else None,
        radius=radius,
        route=plan.route,
        guess=plan.label,
        route_radius=stated(float(others.min())) if others.size else math.inf,
        class_radius=stated(float(class_radii[plan.route])),
        exclusion=tuple(stated(float(e)) for e in exclusion),
        class_radii=tuple(stated(float(a)) for a in class_radii),
    )


def _bottleneck(evidence: Evidence, tally: Tally) -> list[Stream]:
    """The stream to sample next: what can still raise the level that now bounds the radius; empty when done."""
    plan = evidence.plan
    now = plan.reaches(evidence.lower)
    level = int(np.argmin(now))
    target = evidence.budget.target(float(now[level]), plan.radius(evidence.reachable))
    if now[level] >= target:
        return []
    options: list[tuple[bool, float, Stream]] = []
    for stream in evidence.streams():
        looks = len(tally.looks.get(stream, []))
        if looks == len(evidence.budget.looks):
            continue
        gain = plan.reaches(evidence.hoped(stream))[level]
        if gain > now[level]:
            # among streams that could settle the level alone: the one that has cost least; else the most promising
            enough = bool(gain >= target)
            options.append((enough, -looks if enough else float(gain), stream))
    return [max(options)[2]] if options else []


def selected(terms: Terms, tally: Tally, stream: Stream) -> Counts:
    """The selection votes of a stream. Raises `CertificateError` where there are none."""
    counts = tally.counts(stream)
    if not counts.any():
        raise CertificateError(
            f"no selection votes of {stream.stage} level {stream.level}, which rule {terms.rule} with route "
            f"{terms.route_kind} needs; evaluate with --all-levels"
        )
    return counts
