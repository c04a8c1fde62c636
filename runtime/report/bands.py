"""How far a certified accuracy may be off because only some images were tried."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.statistics.bounds import Array, lower_bound, upper_bound

LEVEL = 0.95
"""Confidence of a band at each single radius; the certificates' own alpha is another, much smaller, matter."""


def accuracy_band(certified: npt.ArrayLike, images: int, level: float = LEVEL) -> tuple[Array, Array]:
    """With probability at least `level`, at any one radius fixed in advance, the share of *all* images of the
    population that would be certified lies between the two: exact two-sided Clopper–Pearson from `certified` of
    `images`.

    Pointwise, not simultaneous over radii; it presumes that the images are a random sample of their population.
    """
    tail = (1 - level) / 2
    return lower_bound(certified, images, tail), upper_bound(certified, images, tail)


def all_bands(images: int, level: float = LEVEL) -> tuple[Array, Array]:
    """`accuracy_band` of 0, 1, ..., `images` certified images: [images + 1] each."""
    return accuracy_band(np.arange(images + 1), images, level)
