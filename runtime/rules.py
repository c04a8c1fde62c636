"""Rules: from bounds on vote probabilities to a certified radius (DESIGN section 3). Pure functions, no sampling.

Everything is said in *claims*: "with probability at least 1 - alpha, a pass of this stage and level votes inside this
event with probability at least L". The claims of a plan, and how alpha is split over them, are fixed by the guessed
route and label, which come from selection votes; they hold together with probability at least 1 - alpha (union bound).
The certified radius then follows by geometry alone: Phi^-1 of the smoothed probability of any event is
1/sigma-Lipschitz in the input (Salman et al. 2019, lemma 2; Cohen et al. 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualsmooth.runtime.bounds import Array, normal_quantile
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.votes import CLASSIFIER, ESTIMATOR, Counts

MEDIAN, MODE = "median", "mode"
MAIN_SHARE = 0.98
"""Share of a stage's alpha for the claims that matter most for the guessed route; the others divide the rest."""


@dataclass(frozen=True)
class Claim:
    """Lower-bounds the probability that a pass of `stage` at `level` votes for a class in `event`, failing with
    probability at most `alpha`."""

    stage: str
    level: int
    event: tuple[int, ...]
    alpha: float


@dataclass(frozen=True)
class Plan:
    """The claims behind one certificate, and the geometry that turns their bounds into radii."""

    sigmas: tuple[float, ...]
    sigma_e: float
    route_kind: str
    route: int
    label: int
    claims: tuple[Claim, ...]
    routed: bool = True

    def exclusion(self, lower: Array) -> Array:
        """Exclusion radius e_s of each level s [K], from the bounds of all claims [len(claims)].

        Closer to the input than e_s, the smoothed estimator cannot route to level s. `median`: s is excluded while
        F_(s-1) >= 1/2 or F_s < 1/2; a claim on a smaller set bounds every larger one too. `mode`: s is excluded while
        the guessed route is more probable than s. An unrouted plan (one sigma) excludes all other levels everywhere.
        """
        levels = range(len(self.sigmas))
        if not self.routed:
            return np.array([0.0 if s == self.route else math.inf for s in levels])
        quantiles = normal_quantile(lower)
        mine = [(set(c.event), float(z)) for c, z in zip(self.claims, quantiles, strict=True) if c.stage == ESTIMATOR]

        def best(allowed: set[int]) -> float:
            return max((z for event, z in mine if event <= allowed), default=-math.inf)

        if self.route_kind == MEDIAN:
            bounds = [max(best(set(range(s))), best(set(range(s + 1, len(self.sigmas))))) for s in levels]
        else:
            top = best({self.route})
            bounds = [-math.inf if s == self.route else (top + best(set(levels) - {s})) / 2 for s in levels]
        return np.asarray(self.sigma_e * np.maximum(0.0, np.array(bounds)))

    def class_radii(self, lower: Array) -> Array:
        """A_s of each level s [K]: the radius within which the classifier smoothed at s certainly says `label`;
        0 where the plan makes no claim."""
        radii = np.zeros(len(self.sigmas))
        for claim, z in zip(self.claims, normal_quantile(lower), strict=True):
            if claim.stage == CLASSIFIER:
                radii[claim.level] = self.sigmas[claim.level] * max(0.0, float(z))
        return radii

    def radius(self, lower: Array) -> float:
        """R = min over levels of max(e_s, A_s): within R every level is excluded or says `label`."""
        return float(np.min(np.maximum(self.exclusion(lower), self.class_radii(lower))))


def guess_route(counts: Counts, route_kind: str) -> int:
    """The route that selection votes [K] suggest: their median or their mode."""
    if route_kind == MODE:
        return int(np.argmax(counts))
    return int(np.argmax(2 * np.cumsum(counts) >= counts.sum()))


def check_rule(rule: str, route_kind: str | None, sigmas: tuple[float, ...]) -> tuple[str, str]:
    """Validate a rule and its route; the default route is `median` for `interval` and `mode` for the others."""
    if isinstance(rule, str) and rule.startswith("single:"):
        single_level(rule, sigmas)
    elif rule not in ("interval", "paper", "multiscale"):
        raise InputError(f"rule {rule!r} is unknown; expected interval, paper, multiscale or single:SIGMA")
    route_kind = route_kind or (MEDIAN if rule == "interval" else MODE)
    if route_kind not in (MEDIAN, MODE):
        raise InputError(f"route {route_kind!r} is unknown; expected median or mode")
    return rule, route_kind


def single_rule(sigma: float) -> str:
    """The rule that certifies at one level alone, e.g. `single:0.5`; `single_level` reads the same number back."""
    return f"single:{sigma:g}" if float(f"{sigma:g}") == sigma else f"single:{sigma!r}"


def single_level(rule: str, sigmas: tuple[float, ...]) -> int:
    """The level of `single:SIGMA`, e.g. 1 for `single:0.5` and sigmas (0.25, 0.5, 1.0)."""
    text = rule.removeprefix("single:")
    try:
        return sigmas.index(float(text))
    except ValueError:
        known = ", ".join(single_rule(s).removeprefix("single:") for s in sigmas)
        raise InputError(f"rule {rule!r} names a sigma that the bundle lacks; expected one of {known}") from None


def make_plan(
    rule: str, route_kind: str, *, sigmas: tuple[float, ...], sigma_e: float, route: int, label: int, alpha: float
) -> Plan:
    """The claims of one certificate, with their shares of alpha. The shares add up to alpha.

    `single:SIGMA`: Cohen's certificate, all alpha on one claim. `paper`: alpha/2 on the route, alpha/2 on the label
    (Sun et al. 2026). `interval`: alpha/2 on the estimator's cumulative (or per-level) probabilities, alpha/2 on the
    label at every level; of each half, `MAIN_SHARE` goes to the claims that matter most for the guessed route.
    """
    count = len(sigmas)
    label_claim = (label,)
    if rule.startswith("single:") or count == 1:
        only = Claim(CLASSIFIER, route, label_claim, alpha)
        return Plan(sigmas, sigma_e, route_kind, route, label, (only,), routed=False)
    below, above = tuple(range(route + 1)), tuple(range(route, count))
    if rule == "paper":
        events = [(route,)] if route_kind == MODE else [e for e in (below, above) if len(e) < count]
        claims = [Claim(ESTIMATOR, 0, event, alpha / 2 / len(events)) for event in events]
        claims.append(Claim(CLASSIFIER, route, label_claim, alpha / 2))
        return Plan(sigmas, sigma_e, route_kind, route, label, tuple(claims))
    if route_kind == MEDIAN:
        heads = [tuple(range(j)) for j in range(1, count)]
        events = [*heads, *(tuple(range(len(head), count)) for head in heads)]
        main = {event for event in (below, above) if len(event) < count}
    else:
        others = [s for s in range(count) if s != route]
        events = list(dict.fromkeys([(route,), *(tuple(c for c in range(count) if c != s) for s in others)]))
        main = {(route,)}
    shares = _shares(events, main, alpha / 2)
    claims = [Claim(ESTIMATOR, 0, event, share) for event, share in zip(events, shares, strict=True)]
    levels = list(range(count))
    for level, share in zip(levels, _shares(levels, {route}, alpha / 2), strict=True):
        claims.append(Claim(CLASSIFIER, level, label_claim, share))
    return Plan(sigmas, sigma_e, route_kind, route, label, tuple(claims))


def _shares(items: list[Any], main: set[Any], alpha: float) -> list[float]:
    rest = len(items) - len(main)
    if rest == 0:
        return [alpha / len(items)] * len(items)
    return [alpha * (MAIN_SHARE / len(main) if item in main else (1 - MAIN_SHARE) / rest) for item in items]
