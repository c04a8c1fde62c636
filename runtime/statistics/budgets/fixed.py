"""One look at a number of passes that was fixed in advance (Cohen et al. 2019, CERTIFY)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy.typing as npt

from dualsmooth.runtime.statistics.bounds import Array, lower_bound
from dualsmooth.runtime.statistics.budgets.budget import Budget, require_count, whole


@dataclass(frozen=True)
class Fixed(Budget):
    """Cohen's budget: `n0` selection votes, then `n` votes bounded once. The paper's experiments: n = 10,000.

    >>> budget = Fixed(10_000)
    >>> budget.looks, budget.selection
    ((10000,), 100)
    >>> float(budget.lower(9_900, look=0, alpha=0.001).round(4))  # p, from 9,900 of 10,000 votes
    0.9865
    """

    kind: ClassVar[str] = "fixed"
    form: ClassVar[str] = "fixed:N"
    example: ClassVar[str] = "fixed:10000"
    call: ClassVar[str] = "Fixed(n)"
    most: ClassVar[str] = "n"

    n: int
    n0: int = 100

    @classmethod
    def parsed(cls, values: list[str]) -> Self | None:
        return cls(*map(whole, values)) if 1 <= len(values) <= 2 else None

    def __post_init__(self) -> None:
        require_count("n", self.n)
        require_count("n0", self.n0)

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

    @property
    def spends(self) -> str:
        return f"N = {self.n:,} a stage and level"
