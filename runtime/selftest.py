"""Start-up self-test of the noise: a broken or tampered generator is refused before it can issue a certificate."""

from __future__ import annotations

import numpy as np
from scipy import special

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise import Seed, add_noise
from dualsmooth.runtime.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream

DRAWS = 1 << 18
DEVIATIONS = 6.0
"""How many standard errors a statistic may be off; a sound generator fails one start in about 10^7."""


def check_generator(seed: Seed | None = None) -> None:
    """Moments, tails, serial correlation and independence of two streams, of the very noise that is added to images.

    Raises `EngineError` with the first statistic that is off.
    """
    seed = seed or Seed.make(None)
    streams = (Stream(ESTIMATOR, 0, SELECTION), Stream(CLASSIFIER, 0, ESTIMATION))
    draws = []
    for stream in streams:
        out = np.empty((DRAWS, 1, 1, 1), np.float32)
        add_noise(seed.generator(stream), np.zeros((1, 1, 1), np.float32), 1.0, out)
        draws.append(out.ravel().astype(np.float64))
    first, second = draws
    tail = float(special.ndtr(-2.0))
    statistics = {
        "mean": (first.mean(), 0.0, 1.0),
        "variance": ((first**2).mean(), 1.0, np.sqrt(2.0)),
        "skewness": ((first**3).mean(), 0.0, np.sqrt(15.0)),
        "kurtosis": ((first**4).mean(), 3.0, np.sqrt(96.0)),
        "lower tail": ((first < -2).mean(), tail, np.sqrt(tail * (1 - tail))),
        "upper tail": ((first > 2).mean(), tail, np.sqrt(tail * (1 - tail))),
        "serial correlation": ((first[1:] * first[:-1]).mean(), 0.0, 1.0),
        "correlation of two streams": ((first * second).mean(), 0.0, 1.0),
    }
    for name, (found, expected, deviation) in statistics.items():
        if not abs(found - expected) <= DEVIATIONS * deviation / np.sqrt(DRAWS):
            raise EngineError(
                f"noise generator: {name} is {found:.5f}; expected {expected:.5f}: it is broken or was replaced"
            )
