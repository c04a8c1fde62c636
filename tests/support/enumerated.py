"""What tests that enumerate all votes share: bounds from SciPy, the hardest worlds, the true radius on a line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
from scipy import special, stats

from dualsmooth.runtime.statistics.bounds import lower_bound

LINE = np.linspace(-3, 3, 60_001)


def nearest_other(answers: np.ndarray, label: int, line: np.ndarray = LINE) -> float:
    """Distance from 0 to the nearest point of the line where the answer is not the label."""
    wrong = np.abs(line[answers != label])
    return float(wrong.min()) if len(wrong) else math.inf


def hardest_ends(hits: Iterable[int], n: int, alphas: Iterable[float]) -> list[float]:
    """Ends (in sigmas) just below what so many hits among n prove at each alpha: where claims err most."""
    return [float(special.ndtri(float(lower_bound(k, n, alpha)))) - 1e-4 for k, alpha in product(hits, alphas)]


def by_hand(hits: int, n: int, alpha: float) -> float:
    """The Clopper-Pearson lower bound, as a distance in sigmas."""
    return float(special.ndtri(stats.beta.ppf(alpha, hits, n - hits + 1)))
