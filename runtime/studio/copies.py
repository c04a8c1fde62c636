"""Noisy copies of a picture, and how the networks vote on them: the runtime's own noise, in small numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.noise.watch import sound_stream
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.votes import ESTIMATOR, Stream

Floats = npt.NDArray[np.float32]


class Copies:
    """The noisy copies of one stream, from its first on."""

    def __init__(self, smoother: Smoother, seed: Seed, stream: Stream) -> None:
        bundle = smoother.bundle
        self._model, self.sigma = bundle.voter(stream)
        self._width = len(bundle.sigmas if stream.stage == ESTIMATOR else bundle.classes)
        self._engine, self._mode = smoother.engine, seed.noise.mode
        self._generator = sound_stream(seed, stream, self._engine.xp)

    def draw(self, image: Floats, count: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The next `count` noisy copies of an image [C,H,W], and the vote on each."""
        xp: Any = self._engine.xp
        made = xp.empty((count, *image.shape), np.float32)
        add_noise(self._generator, image, self.sigma, made, self._mode, xp=xp)
        votes = self._engine.votes(self._model, made, self.sigma, self._width)
        return (made if xp is np else xp.asnumpy(made)), votes
