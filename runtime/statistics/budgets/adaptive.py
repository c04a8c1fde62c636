"""Sample what bounds the radius, and stop when little more is reachable (docs/mathematics.md, theorem 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import Array, lower_bound
from dualsmooth.runtime.statistics.budgets.budget import Budget, geometric_looks, is_real, plain, require_count, whole


@dataclass(frozen=True)
class Adaptive(Budget):
    """Stop when the radius is within `tolerance` (relative) of what is still reachable at `max_passes` a stream.

    Looks at geometric sample sizes; the last one gets 80 % of alpha, the earlier ones share the rest. Tolerance 0 stops
    only streams that no longer bound the radius. Tolerances up to 0.05 were seen to beat the `Fixed(n)` of equal cost
    (docs/budgets.md); beyond, a smaller `max_passes` is the better way to spend less. `n0` selection votes.

    >>> Adaptive(10_000).looks
    (313, 625, 1250, 2500, 5000, 10000)
    """

    kind: ClassVar[str] = "adaptive"
    form: ClassVar[str] = "adaptive:N:TOLERANCE"
    example: ClassVar[str] = "adaptive:100000:0.05"
    call: ClassVar[str] = "Adaptive(max_passes, tolerance)"

    max_passes: int
    tolerance: float = 0.0
    n0: int = 100

    @classmethod
    def parsed(cls, values: list[str]) -> Self | None:
        if not 1 <= len(values) <= 3:
            return None
        return cls(whole(values[0]), float(values[1]) if values[1:] else 0.0, *map(whole, values[2:]))

    def __post_init__(self) -> None:
        require_count("max_passes", self.max_passes)
        require_count("n0", self.n0)
        if not (is_real(self.tolerance) and 0 <= self.tolerance < 1):
            raise InputError(f"tolerance is {self.tolerance}; expected 0 <= tolerance < 1, e.g. 0.02")

    def __str__(self) -> str:
        return f"adaptive:{self.max_passes}:{plain(self.tolerance)}" + (f":{self.n0}" if self.n0 != 100 else "")

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
