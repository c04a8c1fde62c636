"""Randomness of a run: every stream is derived from (seed, stage, step), so a resumed run draws the same numbers."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Randomness(IntEnum):
    """What a stream of random numbers is for; the values are part of what a seed means."""

    SPLIT = 0
    CLASSIFIER = 1
    LABELS = 2
    ESTIMATOR = 3
    METRICS = 4
    ROUTES = 5
    DRAWS = 6
    CHECKS = 7


def numpy_generator(seed: int, stream: Randomness, *key: int) -> np.random.Generator:
    """An independent NumPy generator for (seed, stream, key)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, stream, *key])))


def torch_generator(seed: int, stream: Randomness, *key: int, device: str = "cpu") -> torch.Generator:
    """An independent torch generator for (seed, stream, key)."""
    state = np.random.SeedSequence([seed, stream, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)
