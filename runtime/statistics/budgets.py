"""Budgets: how many passes to spend, and when to stop. Confidence survives looking at the data.

A budget fixes in advance at which sample sizes ("looks") the votes of a stream may be bounded, and how the alpha of
each bound covers all its looks. Therefore any data-dependent stopping or interleaving of streams is sound; the choice
of *what* to sample and *when* to stop is a matter of cost only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import KT_ALPHA_MAX, RADIUS_STEP, Array, kt_lower, lower_bound, upper_bound

MAX_PASSES = 100_000_000
OPTIMISM = 5e-3
"""Level of the upper bound on p behind "still reachable", at each look. It decides cost only, not safety."""


@dataclass(frozen=True)
class Budget(ABC):
    """What the three budgets share. `looks` are sample sizes of one stream, ascending; `n0` selection votes."""

    @property
    @abstractmethod
    def looks(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def selection(self) -> int:
        """Selection votes per guess (route, label); they come on top of the bounded votes."""

    @abstractmethod
    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        """With probability at least 1 - alpha over *all* looks, p >= the returned value at every one of them.

        `successes` votes for the event among the first `looks[look]` passes; arrays broadcast.
        """

    @abstractmethod
    def target(self, radius: float, reachable: float) -> float:
        """The radius at which to stop, from the radius so far and the one still reachable. Cost only, not safety."""

    def reachable(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        """What `lower` would be at the last look if the votes to come were as good as is still plausible.

        `look = -1` stands for "no votes yet": all to come may be successes.
        """
        k, last = np.asarray(successes, np.float64), self.looks[-1]
        if look < 0:
            return self.lower(np.full(k.shape, float(last)), len(self.looks) - 1, alpha)
        n = self.looks[look]
        final = np.minimum(last, np.ceil(k + (last - n) * upper_bound(k, n, OPTIMISM)))
        return self.lower(final, len(self.looks) - 1, alpha)


@dataclass(frozen=True)
class Fixed(Budget):
    """Cohen's budget: `n0` selection votes, then `n` votes bounded once. The paper's experiments: n = 10,000."""

    n: int
    n0: int = 100

    def __post_init__(self) -> None:
        _count("n", self.n)
        _count("n0", self.n0)

    def __str__(self) -> str:
        return f"fixed:{self.n}" + (f":{self.n0}" if self.n0 != 100 else "")

    @property
    def looks(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def selection(self) -> int:
        return self.n0

    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        return lower_bound(successes, self.looks[look], alpha)

    def target(self, radius: float, reachable: float) -> float:
        return reachable


@dataclass(frozen=True)
class Adaptive(Budget):
    """Stop when the radius is within `tolerance` (relative) of what is still reachable at `max_passes` a stream.

    Looks at geometric sample sizes; the last one gets 80 % of alpha, the earlier ones share the rest. Tolerance 0 stops
    only streams that no longer bound the radius. Tolerances up to 0.05 were seen to beat the `Fixed(n)` of equal cost
    (docs/budgets.md); beyond, a smaller `max_passes` is the better way to spend less. `n0` selection votes.
    """

    max_passes: int
    tolerance: float = 0.0
    n0: int = 100

    def __post_init__(self) -> None:
        _count("max_passes", self.max_passes)
        _count("n0", self.n0)
        if not (_real(self.tolerance) and 0 <= self.tolerance < 1):
            raise InputError(f"tolerance is {self.tolerance}; expected 0 <= tolerance < 1, e.g. 0.02")

    def __str__(self) -> str:
        return f"adaptive:{self.max_passes}:{_plain(self.tolerance)}" + (f":{self.n0}" if self.n0 != 100 else "")

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return geometric_looks(self.max_passes, first=200, ratio=2.0)

    @property
    def selection(self) -> int:
        return self.n0

    def lower(self, successes: npt.ArrayLike, look: int, alpha: npt.ArrayLike) -> Array:
        count = len(self.looks)
        share = 1.0 if count == 1 else 0.8 if look == count - 1 else 0.2 / (count - 1)
        return lower_bound(successes, self.looks[look], np.asarray(alpha, np.float64) * share)

    def target(self, radius: float, reachable: float) -> float:
        return reachable * (1 - self.tolerance)


HORIZON_SHARE = 0.2
"""Share of alpha for the exact look at `max_passes`; the mixture test, which may stop at any look, has the rest."""


def mixture_lower(successes: npt.ArrayLike, trials: int, alpha: Array) -> Array:
    """With probability at least 1 - alpha, p >= the returned value at every sample size at once (`kt_lower`)."""
    return kt_lower(successes, trials, np.minimum(alpha, KT_ALPHA_MAX))


class _Anytime(Budget):
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
class AtRadius(_Anytime):
    """ "Is this prediction certified at radius `r`?": stop as soon as it is settled, or at `max_passes` a stream.

    Each bound is the Krichevsky–Trofimov mixture test, valid at every sample size, so the looks cost no confidence; at
    `max_passes` there is one exact Clopper–Pearson look besides, with `HORIZON_SHARE` of alpha.
    A refusal (radius below r) is a statement about cost, not a safety claim: its error level is `OPTIMISM` a look.
    """

    r: float
    max_passes: int = 100_000
    n0: int = 50

    def __post_init__(self) -> None:
        if not (_real(self.r) and math.isfinite(self.r) and self.r > 0):
            raise InputError(f"r is {self.r}; expected a positive radius, e.g. 0.5")
        _count("max_passes", self.max_passes)
        _count("n0", self.n0)

    def __str__(self) -> str:
        return f"at-radius:{_plain(self.r)}:{self.max_passes}" + (f":{self.n0}" if self.n0 != 50 else "")

    def target(self, radius: float, reachable: float) -> float:
        return self.r if reachable >= self.r else 0.0


@dataclass(frozen=True)
class AtRadii(_Anytime):
    """ "At which of these radii is this prediction certified?": a curve of certified accuracy from few passes.

    The bounds of `AtRadius` hold at every sample size at once, so one run of votes settles all radii, each as soon as
    it can be: alpha covers all decisions of an image together. Between two of the radii the certified radius says no
    more than the smaller one does. Radius 0 asks whether anything is certified at all. Costs and guarantees as for
    `AtRadius`.
    """

    radii: tuple[float, ...]
    max_passes: int = 100_000
    n0: int = 50

    def __post_init__(self) -> None:
        radii = self.radii
        numbers = isinstance(radii, tuple) and all(_real(r) and math.isfinite(r) and r >= 0 for r in radii)
        if not (numbers and radii and all(a < b for a, b in pairwise(radii))):
            raise InputError(f"radii are {str(radii)[:60]}; expected ascending radii from 0, e.g. (0.25, 0.5, 1.0)")
        _count("max_passes", self.max_passes)
        _count("n0", self.n0)

    def __str__(self) -> str:
        radii = ",".join(_plain(r) for r in self.radii)
        return f"at-radii:{radii}:{self.max_passes}" + (f":{self.n0}" if self.n0 != 50 else "")

    def target(self, radius: float, reachable: float) -> float:
        asked = (max(r, RADIUS_STEP) for r in self.radii)
        return min((r for r in asked if radius < r <= reachable), default=0.0)


def geometric_looks(last: int, *, first: int, ratio: float) -> tuple[int, ...]:
    """Sample sizes first, first * ratio, ... up to exactly `last`; none in the last step's shadow."""
    sizes = [last]
    while sizes[-1] / ratio >= first:
        sizes.append(min(sizes[-1] - 1, math.ceil(sizes[-1] / ratio)))
    return tuple(dict.fromkeys(reversed(sizes)))


FORMS = "fixed:N, adaptive:N:TOLERANCE, at-radius:R:N or at-radii:R,R,...:N"
"""How budgets are written; `:n0` may follow each."""


def parse_budget(text: str) -> Budget:
    """The budget that a text names (`FORMS`), e.g. `fixed:10000`, `adaptive:100000:0.05`. Raises `InputError`."""
    kind, *values = text.split(":")
    try:
        match kind, values:
            case "fixed", [n, *n0] if len(n0) <= 1:
                return Fixed(whole(n), *map(whole, n0))
            case "adaptive", [n, *rest] if len(rest) <= 2:
                return Adaptive(whole(n), float(rest[0]) if rest else 0.0, *map(whole, rest[1:]))
            case "at-radius", [r, *rest] if len(rest) <= 2:
                return AtRadius(float(r), *map(whole, rest))
            case "at-radii", [radii, *rest] if len(rest) <= 2:
                return AtRadii(tuple(map(float, radii.split(","))), *map(whole, rest))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
    raise InputError(f"budget {text[:60]!r}; expected {FORMS}, e.g. fixed:10000")


def whole(text: str) -> int:
    """The integer that a text states: `10000`, or `1e4`. Raises `ValueError`."""
    try:
        return int(text)
    except ValueError:
        if not float(text).is_integer():
            raise
        return int(float(text))


def _count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MAX_PASSES:
        raise InputError(f"{name} is {value!r}; expected an integer from 1 to {MAX_PASSES}")


def _real(value: object) -> bool:
    return isinstance(value, float | int | np.floating) and not isinstance(value, bool)


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
