"""The law of a number of successes, of scipy.special alone: scipy.stats takes longer to import than a first certificate
to make. Exact tails, no normal approximations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def at_most(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> Array:
    """The probability of at most k successes in n independent trials of probability p. Arrays broadcast.

    >>> float(at_most(1, 2, 0.5))
    0.75
    """
    k, n, p = np.asarray(k), np.asarray(n), np.asarray(p, np.float64)
    inside = special.betaincc(np.clip(k, 0, n - 1) + 1, n - np.clip(k, 0, n - 1), p)
    return np.asarray(np.where(k < 0, 0.0, np.where(k >= n, 1.0, inside)))


def at_least(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> Array:
    """The probability of at least k successes; exact in its tail, where 1 - `at_most` is not.

    >>> float(at_least(2, 2, 0.5))
    0.25
    """
    k, n, p = np.asarray(k), np.asarray(n), np.asarray(p, np.float64)
    inside = special.betainc(np.clip(k, 1, n), n - np.clip(k, 1, n) + 1, p)
    return np.asarray(np.where(k <= 0, 1.0, np.where(k > n, 0.0, inside)))


def limits(n: int, p: npt.ArrayLike, alpha: float) -> tuple[Counts, Counts]:
    """The least and the most successes that are not too rare: fewer come with probability at most alpha / 2, and so do
    more."""
    p = np.asarray(p, np.float64)
    low = _first(lambda k: at_most(k, n, p) > alpha / 2, n, p.shape)
    high = _first(lambda k: at_least(k + 1, n, p) <= alpha / 2, n, p.shape)
    return low, high


def _first(holds: Callable[[Any], Any], n: int, shape: tuple[int, ...]) -> Counts:
    """The least number from 0 to n from which on `holds`, by bisection."""
    low, high = np.full(shape, -1), np.full(shape, n)
    while (high - low > 1).any():
        middle = (low + high) // 2
        found = holds(middle)
        low, high = np.where(found, low, middle), np.where(found, middle, high)
    return high
