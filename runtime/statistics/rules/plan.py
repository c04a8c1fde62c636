"""Plans: from bounds on vote probabilities to a certified radius (docs/mathematics.md). Pure functions, no sampling.

Everything is said in *claims*: "with probability at least 1 - alpha, a pass of this stage and level votes inside this
event with probability at least L". The certified radius follows from the claims by geometry alone: Phi^-1 of the
smoothed probability of any event is 1/sigma-Lipschitz in the input (Salman et al. 2019, lemma 2; Cohen et al. 2019).

**Where alpha goes** (intersection-union test, Berger 1982; docs/mathematics.md, theorem 4). The radius is a *minimum*
over levels of what each level proves. Let s* be the level that attains the minimum with the *true* probabilities: it is
fixed by the input and the label, not by the votes that are bounded. A radius above the true one needs a false claim *of
that one level*. So each level may spend all of alpha; nothing is divided by the number of levels, of stages or of
classes. The radius holds with probability 1 - alpha; e_s and A_s do one by one, not together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualsmooth.runtime.statistics.bounds import Array, normal_quantile
from dualsmooth.runtime.statistics.routes import MODE, quantile_of
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR, Counts, Stage, Stream, Tally

RIVAL_SHARE = 0.1
"""Share of a claim's alpha for "each other class is less probable than"; the rest is for the top class."""


@dataclass(frozen=True)
class Claim:
    """Lower-bounds the probability that a pass of `stage` at `level` votes for a class in `event`, failing with
    probability at most `alpha`. With `rivals`: the probability that it votes for any class but c, for the class c
    outside of `event` that has most votes; it fails with probability at most `alpha` for each c. With `sure`: of a
    pass whose vote counts for its class where it is sure, and else for one more (`Tally.sure_counts`)."""

    stage: Stage
    level: int
    event: tuple[int, ...]
    alpha: float
    rivals: bool = False
    sure: bool = False

    def hits(self, counts: Counts) -> int:
        """How many of the votes `counts` [classes] are for it."""
        if not self.rivals:
            return int(counts[list(self.event)].sum())
        return int(counts.sum() - np.delete(counts, self.event).max())

    def hits_of(self, tally: Tally, stream: Stream, look: int = -1) -> int:
        """How many of the votes of a stream, at a look, are for it."""
        return self.hits(tally.sure_counts(stream, look) if self.sure else tally.looks[stream][look])


@dataclass(frozen=True)
class Plan:
    """The claims behind one certificate, and the geometry that turns their bounds into radii."""

    sigmas: tuple[float, ...]
    sigma_e: float | None
    route_kind: str
    route: int
    label: int
    claims: tuple[Claim, ...]
    routed: bool = True

    def exclusion(self, lower: Array) -> Array:
        """Exclusion radius e_s of each level s [K], from the bounds of all claims [len(claims)].

        Closer to the input than e_s, the smoothed estimator cannot route to level s. With the median (or q-quantile): s
        is excluded while F_(s-1) >= 1/2 (q) or F_s < 1/2 (q); a claim on a smaller set bounds every larger one too.
        `mode`: s is excluded while the guessed route is more probable than s. An unrouted plan (one sigma) excludes all
        other levels everywhere.
        """
        levels = range(len(self.sigmas))
        if not self.routed or self.sigma_e is None:
            return np.array([0.0 if s == self.route else math.inf for s in levels])
        quantiles = normal_quantile(lower)
        mine = [(set(c.event), float(z)) for c, z in zip(self.claims, quantiles, strict=True) if c.stage == ESTIMATOR]

        def best(allowed: set[int]) -> float:
            return max((z for event, z in mine if event <= allowed), default=-math.inf)

        if self.route_kind == MODE:
            top = best({self.route})
            bounds = [-math.inf if s == self.route else (top + best(set(levels) - {s})) / 2 for s in levels]
        else:
            cut = float(normal_quantile(quantile_of(self.route_kind)))
            heads = [best(set(range(s))) - cut for s in levels]
            tails = [best(set(range(s + 1, len(levels)))) + cut for s in levels]
            bounds = [max(pair) for pair in zip(heads, tails, strict=True)]
        return np.asarray(self.sigma_e * np.maximum(0.0, np.array(bounds)))

    def class_radii(self, lower: Array) -> Array:
        """A_s of each level s [K]: the radius within which the classifier smoothed at s certainly says `label`;
        0 where the plan makes no claim.

        The larger of sigma Phi^-1(p_y) and sigma/2 (Phi^-1(p_y) - Phi^-1(p_c)) for the class c that comes closest: both
        are proved (Cohen et al. 2019, theorem 1; the first is its case p_c = 1 - p_y).
        """
        top, rival = np.full((2, len(self.sigmas)), -math.inf)
        for claim, z in zip(self.claims, normal_quantile(lower), strict=True):
            if claim.stage == CLASSIFIER:
                (rival if claim.rivals else top)[claim.level] = z
        return np.asarray(np.array(self.sigmas) * np.maximum(0.0, np.maximum(top, (top + rival) / 2)))

    def radius(self, lower: Array) -> float:
        """R = min over levels of max(e_s, A_s): within R every level is excluded or says `label`."""
        return float(self.reaches(lower).min())

    def reaches(self, lower: Array) -> Array:
        """max(e_s, A_s) of each level s [K]: the radius within which it does no harm to `label`."""
        return np.maximum(self.exclusion(lower), self.class_radii(lower))


def label_claims(level: int, label: int, classes: int, alpha: float) -> list[Claim]:
    """The claims of share `alpha` in all that prove A_s at one level: the top class, and its rivals."""
    if classes == 2:  # "not the other class" is "the label"
        return [Claim(CLASSIFIER, level, (label,), alpha)]
    return [
        Claim(CLASSIFIER, level, (label,), (1 - RIVAL_SHARE) * alpha),
        Claim(CLASSIFIER, level, (label,), RIVAL_SHARE * alpha, rivals=True),
    ]


def exclusion_claims(route_kind: str, levels: int, route: int, alpha: float) -> list[Claim]:
    """The claims that exclude all levels but the guessed `route`, each level with a share of `alpha` in all."""
    return (_mode_claims if route_kind == MODE else _quantile_claims)(levels, route, alpha)


def _quantile_claims(count: int, route: int, alpha: float) -> list[Claim]:
    """A claim for each level but `route`: F_(s-1) is high where s lies above it, F_s is low where s lies below it.

    They are nested, and all have the same share: a claim on a smaller event is never the better one (test_plan.py), so
    a level rests on its own alone.
    """
    above = [Claim(ESTIMATOR, 0, tuple(range(s)), alpha) for s in range(route + 1, count)]
    below = [Claim(ESTIMATOR, 0, tuple(range(s + 1, count)), alpha) for s in range(route)]
    return above + below


def _mode_claims(count: int, route: int, alpha: float) -> list[Claim]:
    """One claim on the guessed route, which all other levels share, and one against each of them."""
    if count == 2:
        return [Claim(ESTIMATOR, 0, (route,), alpha)]
    others = [tuple(c for c in range(count) if c != s) for s in range(count) if s != route]
    top = Claim(ESTIMATOR, 0, (route,), (1 - RIVAL_SHARE) * alpha)
    return [top, *(Claim(ESTIMATOR, 0, event, RIVAL_SHARE * alpha) for event in others)]
