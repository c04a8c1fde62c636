"""What an engine is: it turns noisy batches into votes. A failure never becomes a vote."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.checks import width_of
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.errors import InputError


class Engine(ABC):
    """Runs the base models of one bundle: on ONNX Runtime here (`OnnxEngine`), or on a server.

    An engine says which inputs a network has and what its logits are; votes and ensembles follow from that.
    """

    def __init__(self, provider: str, name: str, *, xp: Any = np, lanes: Lanes | None = None) -> None:
        """`provider` and `name` are what certificates say of it: what runs the networks, and all that decides how they
        round. `xp`: the array module of batches, NumPy or CuPy. `lanes`: where parts of a batch run side by side."""
        self.provider, self.name, self.xp = provider, name, xp
        self._lanes = lanes or Lanes(1)

    @abstractmethod
    def file_takes_sigma(self, name: str) -> bool:
        """Whether one ONNX file has the scalar input `sigma`."""

    @abstractmethod
    def logits(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        """Finite logits [m,width] of one ONNX file for a batch [m,C,H,W]. Raises `EngineError`, `ProviderError`."""

    def settings(self) -> dict[str, Any]:
        """The arguments of `load`, as plain values, that open such an engine again. Raises `InputError` where none
        do."""
        raise InputError(f"a smoother on {self.name} cannot be pickled; load the bundle where it is needed")

    def close(self) -> None:
        """End the threads and let go of the networks; what runs now is finished first by whoever waits for it."""
        self._lanes.close()

    def takes_sigma(self, model: BaseModel) -> bool:
        """Whether the model is conditional on the noise level (scalar input `sigma`)."""
        return any(self.file_takes_sigma(name) for name in model.members)

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        """The arg-max class [m] of each noisy input in `batch` [m,C,H,W]; that plus `width` where the vote is not sure
        (`BaseModel.sure`). Raises `EngineError` on any failure."""
        return self._lanes.run(len(batch), lambda rows: self._part(model, batch[rows], sigma, width))

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started:
        """`votes` on their way, while the caller does something else."""
        return self._lanes.start(len(batch), lambda rows: self._part(model, batch[rows], sigma, width))

    def _part(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        logits: npt.NDArray[Any]
        if len(model.members) == 1:
            logits = self.logits(model.members[0], batch, sigma, width)
            votes = np.asarray(logits.argmax(1), np.int64)
        else:
            votes, logits = self._ensemble(model, batch, sigma, width)
        return votes + width * unsure(logits, model.sure) if model.sure else votes

    def _ensemble(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The votes, and the mean of the logits of the members that were run [m,width]. With K-consensus, inputs on
        which the first K members agree stop there (Horváth et al. 2022, "Boosting Randomized Smoothing with Variance
        Reduced Classifiers", section 5)."""
        first = model.consensus or len(model.members)
        logits = [self.logits(name, batch, sigma, width) for name in model.members[:first]]
        picks = np.stack([member.argmax(1) for member in logits])
        total = np.asarray(np.stack(logits).sum(0, dtype=np.float64))
        open_rows = np.flatnonzero((picks != picks[0]).any(0)) if model.consensus else np.arange(len(batch))
        rest = self.xp.ascontiguousarray(batch[open_rows])
        for name in model.members[first:]:
            if len(rest):
                total[open_rows] += self.logits(name, rest, sigma, width)
        votes: npt.NDArray[np.int64] = picks[0].astype(np.int64)
        votes[open_rows] = total[open_rows].argmax(1)
        run = np.full((len(batch), 1), first)
        run[open_rows] = len(model.members)
        return votes, total / run


def unsure(logits: npt.NDArray[Any], least: float) -> npt.NDArray[np.bool_]:
    """Where the largest softmax of logits [m,width] is below `least` [m]."""
    rest = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64).sum(1)
    return np.asarray(least * rest > 1, np.bool_)


def warm_up(bundle: Bundle, engine: Engine, batch_size: int) -> Iterator[str]:
    """Run every base model once, one batch; yields what was run. Raises `EngineError`, `ProviderError`."""
    batch = engine.xp.full((batch_size, *bundle.input_shape), 0.5, np.float32)
    for model in bundle.models():
        engine.votes(model, batch, bundle.trial_level, width_of(bundle, model))
        yield ", ".join(model.members)
