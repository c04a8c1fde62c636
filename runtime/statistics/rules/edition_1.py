"""What certificates of version 1 prove: the rules with the shares of alpha that they had, so that they stay verifiable.

The shares add up to alpha over all claims (union bound), where version 2 lets each level spend all of it. Nothing
issues such certificates any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import Array
from dualsmooth.runtime.statistics.budgets import AtRadii, AtRadius, Budget
from dualsmooth.runtime.statistics.budgets.decisions import mixture_lower
from dualsmooth.runtime.statistics.routes import MODE
from dualsmooth.runtime.statistics.rules.interval import Interval
from dualsmooth.runtime.statistics.rules.multiscale import Multiscale
from dualsmooth.runtime.statistics.rules.paper import Paper
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Rule, Terms
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR

MAIN_SHARE = 0.98
"""Share of a stage's alpha for the claims that matter most for the guessed route; the others divide the rest."""


@dataclass(frozen=True)
class _Union(PlannedRule):
    """All claims hold together with probability at least 1 - alpha: half of alpha for each stage."""

    edition: ClassVar[int] = 1

    def claims_of_one(self, terms: Terms, level: int, label: int) -> list[Claim]:
        return [Claim(CLASSIFIER, level, (label,), terms.alpha)]


@dataclass(frozen=True)
class Interval1(_Union, Interval):
    """Of each half of alpha, `MAIN_SHARE` for the claims that border the guessed route."""

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        count, half = len(terms.sigmas), terms.alpha / 2
        main: set[tuple[int, ...]]
        if terms.route_kind == MODE:
            others = [s for s in range(count) if s != route]
            events = list(dict.fromkeys([(route,), *(tuple(c for c in range(count) if c != s) for s in others)]))
            main = {(route,)}
        else:
            heads = [tuple(range(j)) for j in range(1, count)]
            events = [*heads, *(tuple(range(len(head), count)) for head in heads)]
            main = set(_sides(count, route))
        rest = len(events) - len(main)
        share = (MAIN_SHARE if rest else 1.0) / len(main)
        shares = [share if event in main else (1 - MAIN_SHARE) / rest for event in events]
        claims = [Claim(ESTIMATOR, 0, event, half * part) for event, part in zip(events, shares, strict=True)]
        for level in range(count):
            part = MAIN_SHARE if level == route else (1 - MAIN_SHARE) / (count - 1)
            claims.append(Claim(CLASSIFIER, level, (label,), half * part))
        return claims


@dataclass(frozen=True)
class Paper1(_Union, Paper):
    """Each stage's half of alpha for its own claims."""

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        half = terms.alpha / 2
        events = [(route,)] if terms.route_kind == MODE else _sides(len(terms.sigmas), route)
        claims = [Claim(ESTIMATOR, 0, event, half / len(events)) for event in events]
        return [*claims, Claim(CLASSIFIER, route, (label,), half)]


@dataclass(frozen=True)
class Single1(_Union, Single):
    """All of alpha for the top class; nothing is said of the others."""


@dataclass(frozen=True)
class Multiscale1(Multiscale):
    """Half of a level's alpha for its label, half for the upper bounds on all classes."""

    edition: ClassVar[int] = 1

    def shares(self, terms: Terms) -> tuple[float, float]:
        half = terms.alpha / len(terms.sigmas) / 2
        return half, half / terms.classes


RULES: dict[type[Rule], type[Rule]] = {
    Interval: Interval1,
    Paper: Paper1,
    Single: Single1,
    Multiscale: Multiscale1,
}


def rule_of(rule: Rule) -> Rule:
    """The rule of the same name as version 1 meant it. Raises `InputError` for one that came later."""
    if type(rule) not in RULES:
        raise InputError(f"rule {rule} in a certificate of version 1, which knew no such rule; expected version 2")
    return RULES[type(rule)](**vars(rule))


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


def _sides(count: int, route: int) -> list[tuple[int, ...]]:
    """The events "at most the route" and "at least the route", where they are no certainties."""
    return [side for side in (tuple(range(route + 1)), tuple(range(route, count))) if len(side) < count]
