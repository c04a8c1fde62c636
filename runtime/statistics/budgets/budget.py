"""The contract of budgets: how many passes to spend, and when to stop. Confidence survives looking at the data.

A budget fixes in advance at which sample sizes ("looks") the votes of a stream may be bounded, and how the alpha of
each bound covers all its looks. Therefore any data-dependent stopping or interleaving of streams is sound; the choice
of *what* to sample and *when* to stop is a matter of cost only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.bounds import Array, upper_bound

MAX_PASSES = 100_000_000
OPTIMISM = 5e-3
"""Level of the upper bound on p behind "still reachable", at each look. It decides cost only, not safety."""


@dataclass(frozen=True)
class Budget(ABC):
    """What budgets share. A budget is a value: its methods depend on its own fields and their arguments alone, never on
    votes seen before. `str(budget)` reads back by `parse_budget`.

    A new one is a file beside this one, with a row in the table of `budgets`.
    """

    kind: ClassVar[str]
    """The word before the first colon of its text."""
    form: ClassVar[str]
    """How it is written, as help texts say it."""
    example: ClassVar[str]
    """A text with usual figures."""
    call: ClassVar[str]
    """How it is made in Python."""
    most: ClassVar[str] = "max_passes"
    """The field that bounds the passes of a stream."""

    @classmethod
    @abstractmethod
    def parsed(cls, values: list[str]) -> Self | None:
        """From the parts of its text after `kind`; None where they are too many or too few. Raises `ValueError`."""

    @property
    @abstractmethod
    def looks(self) -> tuple[int, ...]:
        """Sample sizes of one stream at which its votes may be bounded, ascending."""

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

    @property
    def decides(self) -> tuple[float, ...] | None:
        """The radii at which alone it says whether an image is certified; None where it measures the radius."""
        return None

    @property
    def asked(self) -> float:
        """The least radius that is worth a pass."""
        return RADIUS_STEP if self.decides is None else max(self.decides[0], RADIUS_STEP)

    def sized(self, passes: int) -> Self:
        """The same budget with at most so many passes a stream."""
        return replace(self, **{self.most: passes})

    @property
    def spends(self) -> str:
        """The passes, in words."""
        return f"at most {self.looks[-1]:,} a stage and level"


def geometric_looks(last: int, *, first: int, ratio: float) -> tuple[int, ...]:
    """Sample sizes first, first * ratio, ... up to exactly `last`; none in the last step's shadow."""
    sizes = [last]
    while sizes[-1] / ratio >= first:
        sizes.append(min(sizes[-1] - 1, math.ceil(sizes[-1] / ratio)))
    return tuple(dict.fromkeys(reversed(sizes)))


def whole(text: str) -> int:
    """The integer that a text states: `10000`, or `1e4`. Raises `ValueError`."""
    try:
        return int(text)
    except ValueError:
        if not float(text).is_integer():
            raise
        return int(float(text))


def require_count(name: str, value: int) -> None:
    """Raises `InputError` unless `value` is a number of passes."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MAX_PASSES:
        raise InputError(f"{name} is {value!r}; expected an integer from 1 to {MAX_PASSES}")


def is_real(value: object) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, float | int | np.floating) and not isinstance(value, bool)


def plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
