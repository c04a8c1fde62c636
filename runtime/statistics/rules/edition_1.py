"""What certificates of version 1 prove: the shares of alpha that they were made with, so that they stay verifiable.

They add up to alpha over all claims (union bound), where version 2 lets each level spend all of it (`rules.make_plan`).
Nothing issues such certificates any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.statistics.bounds import Array
from dualsmooth.runtime.statistics.budgets import AtRadii, AtRadius, Budget, mixture_lower
from dualsmooth.runtime.statistics.rules.plan import MODE, Claim, Plan
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR

MAIN_SHARE = 0.98
"""Share of a stage's alpha for the claims that matter most for the guessed route; the others divide the rest."""


def make_plan(
    rule: str, route_kind: str, *, sigmas: tuple[float, ...], sigma_e: float, route: int, label: int, alpha: float
) -> Plan:
    """With probability at least 1 - alpha all claims hold. Half of alpha for each stage; `interval`: of each half,
    `MAIN_SHARE` for the claims that border the guessed route."""
    count = len(sigmas)
    if rule.startswith("single:") or count == 1:
        only = Claim(CLASSIFIER, route, (label,), alpha)
        return Plan(sigmas, sigma_e, route_kind, route, label, (only,), routed=False)
    below, above = tuple(range(route + 1)), tuple(range(route, count))
    if rule == "paper":
        events = [(route,)] if route_kind == MODE else [e for e in (below, above) if len(e) < count]
        claims = [Claim(ESTIMATOR, 0, event, alpha / 2 / len(events)) for event in events]
        claims.append(Claim(CLASSIFIER, route, (label,), alpha / 2))
        return Plan(sigmas, sigma_e, route_kind, route, label, tuple(claims))
    main: set[tuple[int, ...]]
    if route_kind == MODE:
        others = [s for s in range(count) if s != route]
        events = list(dict.fromkeys([(route,), *(tuple(c for c in range(count) if c != s) for s in others)]))
        main = {(route,)}
    else:
        heads = [tuple(range(j)) for j in range(1, count)]
        events = [*heads, *(tuple(range(len(head), count)) for head in heads)]
        main = {event for event in (below, above) if len(event) < count}
    rest = len(events) - len(main)
    share = (MAIN_SHARE if rest else 1.0) / len(main)
    shares = [share if event in main else (1 - MAIN_SHARE) / rest for event in events]
    claims = [Claim(ESTIMATOR, 0, event, alpha / 2 * part) for event, part in zip(events, shares, strict=True)]
    for level in range(count):
        part = MAIN_SHARE if level == route else (1 - MAIN_SHARE) / (count - 1)
        claims.append(Claim(CLASSIFIER, level, (label,), alpha / 2 * part))
    return Plan(sigmas, sigma_e, route_kind, route, label, tuple(claims))


def cascade_shares(levels: int, classes: int, alpha: float) -> tuple[float, float]:
    """`multiscale`: the share of a level's label, and of each upper bound at it."""
    return alpha / levels / 2, alpha / levels / 2 / classes


def budget_of(budget: Budget) -> Budget:
    """The budget of the same text as version 1 meant it: `AtRadius` and `AtRadii` without a look at the horizon."""
    if isinstance(budget, AtRadius):
        return _AtRadius1(budget.r, budget.max_passes, budget.n0)
    if isinstance(budget, AtRadii):
        return _AtRadii1(budget.radii, budget.max_passes, budget.n0)
    return budget


@dataclass(frozen=True)
class _AtRadius1(AtRadius):
    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        return mixture_lower(successes, self.looks[look], np.asarray(alpha, np.float64))


@dataclass(frozen=True)
class _AtRadii1(AtRadii):
    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        return mixture_lower(successes, self.looks[look], np.asarray(alpha, np.float64))
