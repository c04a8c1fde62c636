"""Decisions at radii: is this one certified at r? Stop as soon as that is known (docs/mathematics.md, lemma B)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.bounds import KT_ALPHA_MAX, Array, kt_lower, lower_bound
from dualsmooth.runtime.statistics.budgets.budget import Budget, geometric_looks, is_real, plain, require_count, whole

HORIZON_SHARE = 0.2
"""Share of alpha for the exact look at `max_passes`; the mixture test, which may stop at any look, has the rest."""


def mixture_lower(successes: npt.ArrayLike, trials: int, alpha: Array) -> Array:
    """With probability at least 1 - alpha, p >= the returned value at every sample size at once (`kt_lower`)."""
    return kt_lower(successes, trials, np.minimum(alpha, KT_ALPHA_MAX))


class Anytime(Budget):
    """Decisions at radii: a mixture test that is valid at every sample size, and one exact look at the horizon.

    At the horizon the mixture test is 1.35 to 1.45 times wider than Clopper–Pearson, so part of alpha is kept for that
    look, which was fixed in advance as any other.
    """

    max_passes: int
    n0: int

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return geometric_looks(self.max_passes, first=32, ratio=1.2)

    @property
    def selection(self) -> int:
        return self.n0

    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        share = np.asarray(alpha, np.float64)
        bound = mixture_lower(successes, self.looks[look], (1 - HORIZON_SHARE) * share)
        if look < len(self.looks) - 1:
            return bound
        return np.maximum(bound, lower_bound(successes, self.looks[look], HORIZON_SHARE * share))


@dataclass(frozen=True)
class AtRadius(Anytime):
    """ "Is this prediction certified at radius `r`?": stop as soon as it is settled, or at `max_passes` a stream.

    Each bound is the Krichevsky–Trofimov mixture test, valid at every sample size, so the looks cost no confidence; at
    `max_passes` there is one exact Clopper–Pearson look besides, with `HORIZON_SHARE` of alpha.
    A refusal (radius below r) is a statement about cost, not a safety claim: its error level is `OPTIMISM` a look.

    >>> budget = AtRadius(0.5, max_passes=100)
    >>> budget.looks  # each may be the last
    (35, 42, 50, 59, 70, 84, 100)
    """

    kind: ClassVar[str] = "at-radius"
    form: ClassVar[str] = "at-radius:R:N"
    example: ClassVar[str] = "at-radius:0.5:100000"
    call: ClassVar[str] = "AtRadius(r)"

    r: float
    max_passes: int = 100_000
    n0: int = 50

    @classmethod
    def parsed(cls, values: list[str]) -> Self | None:
        return cls(float(values[0]), *map(whole, values[1:])) if 1 <= len(values) <= 3 else None

    def __post_init__(self) -> None:
        if not (is_real(self.r) and math.isfinite(self.r) and self.r > 0):
            raise InputError(f"r is {self.r}; expected a positive radius, e.g. 0.5")
        require_count("max_passes", self.max_passes)
        require_count("n0", self.n0)

    def __str__(self) -> str:
        return f"at-radius:{plain(self.r)}:{self.max_passes}" + (f":{self.n0}" if self.n0 != 50 else "")

    @property
    def decides(self) -> tuple[float, ...]:
        return (self.r,)

    def target(self, radius: float, reachable: float) -> float:
        return self.r if reachable >= self.r else 0.0


@dataclass(frozen=True)
class AtRadii(Anytime):
    """ "At which of these radii is this prediction certified?": a curve of certified accuracy from few passes.

    The bounds of `AtRadius` hold at every sample size at once, so one run of votes settles all radii, each as soon as
    it can be: alpha covers all decisions of an image together. Between two of the radii the certified radius says no
    more than the smaller one does. Radius 0 asks whether anything is certified at all. Costs and guarantees as for
    `AtRadius`.
    """

    kind: ClassVar[str] = "at-radii"
    form: ClassVar[str] = "at-radii:R,R,...:N"
    example: ClassVar[str] = "at-radii:0.25,0.5,1:100000"
    call: ClassVar[str] = "AtRadii(radii)"

    radii: tuple[float, ...]
    max_passes: int = 100_000
    n0: int = 50

    @classmethod
    def parsed(cls, values: list[str]) -> Self | None:
        if not 1 <= len(values) <= 3:
            return None
        return cls(tuple(map(float, values[0].split(","))), *map(whole, values[1:]))

    def __post_init__(self) -> None:
        radii = self.radii
        numbers = isinstance(radii, tuple) and all(is_real(r) and math.isfinite(r) and r >= 0 for r in radii)
        if not (numbers and radii and all(a < b for a, b in pairwise(radii))):
            raise InputError(f"radii are {str(radii)[:60]}; expected ascending radii from 0, e.g. (0.25, 0.5, 1.0)")
        require_count("max_passes", self.max_passes)
        require_count("n0", self.n0)

    def __str__(self) -> str:
        radii = ",".join(plain(r) for r in self.radii)
        return f"at-radii:{radii}:{self.max_passes}" + (f":{self.n0}" if self.n0 != 50 else "")

    @property
    def decides(self) -> tuple[float, ...]:
        return self.radii

    def target(self, radius: float, reachable: float) -> float:
        asked = (max(r, RADIUS_STEP) for r in self.radii)
        return min((r for r in asked if radius < r <= reachable), default=0.0)
