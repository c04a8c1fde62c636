"""Noise levels as people write them: refused before anything is made with them, with what would do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from dualsmooth.runtime.errors import InputError

LARGEST = 5.0
"""Above this, a noise level, a mean or a deviation of inputs in [0, 1] was meant for inputs from 0 to 255."""


def require_levels(sigmas: Sequence[float], name: str = "sigmas") -> None:
    """Raises `InputError` unless the noise levels are positive, ascending, and meant for inputs in [0, 1]."""
    if not sigmas or not all(math.isfinite(s) and s > 0 for s in sigmas):
        raise InputError(f"{name} is {listed(sigmas)}; expected positive, ascending noise levels, e.g. 0.25,0.5,1")
    require_unit_scale(sigmas, name)
    if not all(a < b for a, b in pairwise(sigmas)):
        fix = listed(sorted(set(sigmas)))
        raise InputError(f"{name} is {listed(sigmas)}; expected positive, ascending noise levels, each once: {fix}")


def require_unit_scale(values: Sequence[float], name: str) -> None:
    """Raises `InputError` for values that are in units of 0 to 255."""
    if of_255(values):
        fix = listed(value / 255 for value in values)
        raise InputError(f"{name} is {listed(values)}; inputs are in [0, 1], not from 0 to 255: expected {fix}")


def of_255(values: Iterable[float]) -> bool:
    """Whether values must be in units of 0 to 255."""
    return any(abs(value) > LARGEST for value in values)


def listed(values: Iterable[float]) -> str:
    """As people write them: short, with commas."""
    return ",".join(f"{value:.4g}" for value in values) or "empty"
