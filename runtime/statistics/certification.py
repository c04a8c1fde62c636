"""One certificate as a process: which passes to draw next, until the budget is satisfied; then the outcome.

`certification` is a generator: it yields the requests it wants fulfilled before it goes on, so that a driver can keep
many images in flight and fill whole batches. What it decides depends on its own votes only, never on its neighbours.
`settle` recomputes an outcome from the votes alone; the generator ends with it, and so does `verify`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.statistics.bounds import Array, require_alpha, round_down
from dualsmooth.runtime.statistics.budgets import Budget
from dualsmooth.runtime.statistics.rules import edition_1
from dualsmooth.runtime.statistics.rules.multiscale import cascade_shares, multiscale_certification, settle_multiscale
from dualsmooth.runtime.statistics.rules.plan import Plan, check_rule, guess_route, make_plan, single_level
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Request, Stream, Tally

MIN_ALPHA = 1e-100
"""Shares of a smaller alpha would round to 0."""

Requests = Generator[list[Request], None, None]


@dataclass(frozen=True)
class Terms:
    """What is certified and how: noise levels, number of classes, alpha, rule, route and budget. `edition`: the version
    of the certificate, which fixes how alpha is shared."""

    sigmas: tuple[float, ...]
    sigma_e: float
    classes: int
    alpha: float
    rule: str
    route_kind: str
    budget: Budget
    edition: int = 2

    @classmethod
    def checked(
        cls,
        sigmas: tuple[float, ...],
        sigma_e: float,
        classes: int,
        *,
        alpha: float,
        rule: str,
        route: str | None,
        budget: Budget,
    ) -> Terms:
        """Raises `InputError` for an alpha outside (0, 0.1], or an unknown rule or route."""
        require_alpha(alpha, MIN_ALPHA)
        if not isinstance(budget, Budget):
            raise InputError(f"budget is {budget!r}; expected Fixed(n), Adaptive(max_passes, tolerance) or AtRadius(r)")
        rule, kind = check_rule(rule, route, sigmas)
        if rule == "multiscale" and len(budget.looks) > 1:
            raise InputError(f"rule multiscale with budget {budget}; expected a Fixed budget")
        return cls(sigmas, sigma_e, classes, float(alpha), rule, kind, budget)

    def of_edition_1(self) -> Terms:
        """The same words as certificates of version 1 meant them."""
        return replace(self, budget=edition_1.budget_of(self.budget), edition=1)

    def tally(self) -> Tally:
        return Tally(self.classes, len(self.sigmas))

    def to_dict(self) -> dict[str, Any]:
        """What a person chose: alpha, rule, route and budget."""
        return {"alpha": self.alpha, "rule": self.rule, "route": self.route_kind, "budget": str(self.budget)}

    def words(self) -> str:
        """The same as one text; part of the keys of the noise."""
        return json.dumps({"edition": self.edition, **self.to_dict()}, sort_keys=True)

    @property
    def subject(self) -> str:
        """Which smoothed classifier keeps its label. Rules that differ here certify different classifiers, whose labels
        may differ, and both be right."""
        if self.rule.startswith("single:") or len(self.sigmas) == 1:
            sigma = self.sigmas[single_level(self.rule, self.sigmas) if len(self.sigmas) > 1 else 0]
            return f"the classifier smoothed at sigma {sigma!r}"
        if self.rule == "multiscale":
            return "the cascade: the largest sigma at which a class has more than half of the votes answers"
        return f"the dual classifier, routed by the {self.route_kind} of the estimator's votes"


@dataclass(frozen=True)
class Outcome:
    """What the votes prove. With probability at least 1 - alpha over the votes: the dual classifier returns `label`
    everywhere closer to the input than `radius` (L2, input units). `label` is None and `radius` 0 on abstention.

    `route` is the guessed level; `route_radius` the distance within which no other level is the route; `class_radius`
    the radius of the classifier at that level; `exclusion` and `class_radii` are e_s and A_s of DESIGN 3.3, by level.
    Each of these holds with probability at least 1 - alpha by itself; they need not hold together.
    """

    label: int | None
    radius: float
    route: int
    guess: int
    route_radius: float
    class_radius: float
    exclusion: tuple[float, ...] = ()
    class_radii: tuple[float, ...] = ()


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
        hits = np.array([self.plan.claims[i].hits(counts) for i in mine], np.float64)
        self.lower[mine] = np.maximum(self.lower[mine], self.budget.lower(hits, look, self.alphas[mine]))
        if forecast:
            more = look < len(self.budget.looks) - 1
            reach = self.budget.reachable(hits, look, self.alphas[mine]) if more else self.lower[mine]
            self.reachable[mine] = np.maximum(self.lower[mine], reach)

    def streams(self) -> list[Stream]:
        return list(self._of)


def certification(terms: Terms, tally: Tally, *, all_levels: bool = False) -> Requests:
    """Ask for the passes of one certificate. After each resumption the requested looks must stand in `tally`.

    `all_levels` draws the selection votes and all bounded votes of every stream, whatever the rule needs: rules can
    then be compared offline on the same votes.
    """
    if terms.rule == "multiscale" and not all_levels:
        yield from multiscale_certification(terms.budget, terms.sigmas, tally, _cascade_shares(terms))
        return
    levels = range(len(terms.sigmas))
    if all_levels:
        every = [Stream(ESTIMATOR, 0, SELECTION), *(Stream(CLASSIFIER, s, SELECTION) for s in levels)]
        yield [Request(stream, terms.budget.selection) for stream in every]
        bounded = [stream._replace(purpose=ESTIMATION) for stream in every]
        for size in terms.budget.looks:
            yield [Request(stream, size) for stream in bounded]
        return
    if _routed(terms):
        yield [Request(Stream(ESTIMATOR, 0, SELECTION), terms.budget.selection)]
    yield [Request(Stream(CLASSIFIER, _route(terms, tally), SELECTION), terms.budget.selection)]
    plan = _plan(terms, tally)
    evidence = Evidence(plan, terms.budget)
    wanted = [s for s in evidence.streams() if s.stage == ESTIMATOR or s.level == plan.route]
    while wanted:
        looks = {stream: len(tally.looks.get(stream, [])) for stream in wanted}
        yield [Request(stream, terms.budget.looks[look]) for stream, look in looks.items()]
        for stream, look in looks.items():
            evidence.update(tally, stream, look)
        wanted = _bottleneck(plan, evidence, tally)


def _bottleneck(plan: Plan, evidence: Evidence, tally: Tally) -> list[Stream]:
    """The stream to sample next: what can still raise the level that now bounds the radius; empty when done."""
    exclusion_reach, class_reach = plan.exclusion(evidence.reachable), plan.class_radii(evidence.reachable)
    now, reach = plan.reaches(evidence.lower), np.maximum(exclusion_reach, class_reach)
    level = int(np.argmin(now))
    target = evidence.budget.target(float(now[level]), float(reach.min()))
    if now[level] >= target:
        return []
    options: list[tuple[bool, float, Stream]] = []
    for stream in evidence.streams():
        looks = len(tally.looks.get(stream, []))
        gain = (
            exclusion_reach[level]
            if stream.stage == ESTIMATOR
            else class_reach[level]
            if stream.level == level
            else 0.0
        )
        if gain > now[level] and looks < len(evidence.budget.looks):
            # among streams that could settle the level alone: the one that has cost least; else the most promising
            enough = bool(gain >= target)
            options.append((enough, -looks if enough else float(gain), stream))
    return [max(options)[2]] if options else []


def settle(terms: Terms, tally: Tally) -> Outcome:
    """The outcome that the votes in `tally` prove under `terms`; a pure function of both.

    Raises `CertificateError` where votes that the rule needs are missing, or looks do not follow the budget.
    """
    if terms.rule == "multiscale":
        return Outcome(**settle_multiscale(terms.budget, terms.sigmas, tally, _cascade_shares(terms)))
    plan = _plan(terms, tally)
    evidence = Evidence(plan, terms.budget)
    for stream in evidence.streams():
        for look in range(len(tally.looks.get(stream, []))):
            if look >= len(terms.budget.looks):
                raise CertificateError(
                    f"{'/'.join(map(str, stream))} has more looks than the budget {terms.budget} fixes"
                )
            evidence.update(tally, stream, look, forecast=False)
    exclusion, class_radii = plan.exclusion(evidence.lower), plan.class_radii(evidence.lower)
    radius = round_down(plan.radius(evidence.lower))
    others = np.delete(exclusion, plan.route)
    return Outcome(
        label=plan.label if radius > 0 else None,
        radius=radius,
        route=plan.route,
        guess=plan.label,
        route_radius=_shown(float(others.min())) if others.size else math.inf,
        class_radius=_shown(float(class_radii[plan.route])),
        exclusion=tuple(_shown(float(e)) for e in exclusion),
        class_radii=tuple(_shown(float(a)) for a in class_radii),
    )


def check_looks(terms: Terms, tally: Tally) -> None:
    """Raises `CertificateError` unless all streams, needed or not, have the looks that the budget fixes: one of
    selection votes, and bounded ones from the first on."""
    for stream, looks in tally.looks.items():
        fixed = (terms.budget.selection,) if stream.purpose == SELECTION else terms.budget.looks
        sizes = tuple(int(counts.sum()) for counts in looks)
        if sizes != fixed[: len(sizes)]:
            raise CertificateError(
                f"the looks of {'/'.join(map(str, stream))} are at {str(sizes)[:80]} votes; the budget {terms.budget} "
                f"fixes {str(fixed)[:80]}"
            )


def _shown(radius: float) -> float:
    return radius if math.isinf(radius) else round_down(radius)


def _routed(terms: Terms) -> bool:
    return len(terms.sigmas) > 1 and not terms.rule.startswith("single:")


def _route(terms: Terms, tally: Tally) -> int:
    if terms.rule.startswith("single:"):
        return single_level(terms.rule, terms.sigmas)
    if len(terms.sigmas) == 1:
        return 0
    return guess_route(_selected(terms, tally, Stream(ESTIMATOR, 0, SELECTION)), terms.route_kind)


def _plan(terms: Terms, tally: Tally) -> Plan:
    route = _route(terms, tally)
    label = int(np.argmax(_selected(terms, tally, Stream(CLASSIFIER, route, SELECTION))))
    fixed: dict[str, Any] = {"sigmas": terms.sigmas, "sigma_e": terms.sigma_e, "alpha": terms.alpha}
    if terms.edition == 1:
        return edition_1.make_plan(terms.rule, terms.route_kind, route=route, label=label, **fixed)
    return make_plan(terms.rule, terms.route_kind, route=route, label=label, classes=terms.classes, **fixed)


def _cascade_shares(terms: Terms) -> tuple[float, float]:
    if terms.edition == 1:
        return edition_1.cascade_shares(len(terms.sigmas), terms.classes, terms.alpha)
    return cascade_shares(len(terms.sigmas), terms.alpha)


def _selected(terms: Terms, tally: Tally, stream: Stream) -> npt.NDArray[np.int64]:
    counts = tally.counts(stream)
    if not counts.any():
        raise CertificateError(
            f"no selection votes of {stream.stage} level {stream.level}, which rule {terms.rule} with route "
            f"{terms.route_kind} needs; evaluate with --all-levels"
        )
    return counts
