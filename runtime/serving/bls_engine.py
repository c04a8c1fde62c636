"""The engine of a server whose networks Triton owns: batches go to other models of the same server (BLS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.engine.checks import check_rows, checked_logits
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.errors import BundleError, EngineError, one_line
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.serving.protocol import TRITON
from dualsmooth.runtime.serving.repository import model_names

Call = Callable[[str, Mapping[str, npt.NDArray[np.float32]]], npt.NDArray[np.float32]]
"""Runs a model of the server, by its name, on its inputs; any exception where it fails."""


class BlsEngine(Engine):
    """Base models that Triton owns: noisy batches go to `variance_estimator` and `classifier` on the same server.

    The files in the repository must be the bundle's, by SHA-256, when the model loads.
    """

    def __init__(self, bundle: Bundle, repository: Path, call: Call) -> None:
        super().__init__(TRITON, "triton onnxruntime backend")
        self._call, self._models = call, model_names(bundle)
        self._bundle, self._untried = bundle, set(self._models)
        self._takes_sigma: dict[str, bool] = {}
        for file, model in self._models.items():
            path = repository / model / "1" / "model.onnx"
            if not path.is_file() or sha256_of(path) != bundle.files[file]:
                raise BundleError(
                    f"{path} is not the bundle's {file}; fill the repository again with `dualsmooth triton`"
                )
            self._takes_sigma[file] = 'name: "sigma"' in (repository / model / "config.pbtxt").read_text()

    def file_takes_sigma(self, name: str) -> bool:
        return self._takes_sigma[name]

    def logits(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        """As for any engine; what others check when they open a network is checked here before its first votes, since
        Triton may load it later."""
        if name in self._untried and check_rows(
            self._bundle.path / name, lambda rows: self._run(name, rows, self._bundle.trial_level, width), self._bundle
        ):
            self._untried.remove(name)
        return self._run(name, batch, sigma, width)

    def _run(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        inputs = {"x": batch}
        if self._takes_sigma[name]:
            inputs["sigma"] = np.full(1, sigma, np.float32)
        try:
            logits = self._call(self._models[name], inputs)
        except Exception as error:
            raise EngineError(
                f"{self._models[name]} failed on the server ({one_line(error)}); no certificate is issued"
            ) from error
        return checked_logits(name, logits, len(batch), width)
