"""Certified accuracy: which radius of an image counts, and the share of images that it counts for at r."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.statistics.bounds import Array

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5)
"""Where certified accuracy is stated unless other radii are asked for; L2, input units."""


def correct_radius(label: int | None, radius: float, truth: int) -> float:
    """The certified radius where the label is the true one; -1 where it is wrong, or None (abstained)."""
    return radius if label == truth else -1.0


def certified_accuracy(radii: npt.NDArray[np.float64], at: Sequence[float] = RADII) -> Array:
    """Share of images [len(at)] that are correct with a certified radius of at least r (and above 0), from their
    `correct_radius` [N].

    >>> radii = np.array([1.2, 0.4, 0.0, -1.0])  # two certified, one right without a radius, one wrong
    >>> certified_accuracy(radii, at=(0.0, 0.5, 1.0))
    array([0.5 , 0.25, 0.25])
    >>> average_certified_radius(radii)
    0.4
    """
    return np.array([np.mean((radii >= r) & (radii > 0)) for r in at])


def average_certified_radius(radii: npt.NDArray[np.float64]) -> float:
    """Mean radius with wrong and abstained images as 0. A footnote: it rewards few large radii."""
    return float(np.mean(np.maximum(radii, 0.0)))
