"""The engine: base models on ONNX Runtime. Turns noisy batches into votes; a failure never becomes a vote."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle import BaseModel, Bundle
from dualsmooth.runtime.errors import BundleError, EngineError, InputError, ProviderError, one_line
from dualsmooth.runtime.files import sha256_of

PROVIDERS = {"cpu": "CPUExecutionProvider"}
MAX_THREADS = 1024
"""ONNX Runtime waits for ever where the system cannot make as many threads as it is asked for."""


class Engine:
    """Sessions for every ONNX file of a bundle on one execution provider."""

    def __init__(self, bundle: Bundle, provider: str = "cpu", *, threads: int = 0) -> None:
        if provider not in PROVIDERS:
            raise InputError(f"provider {provider!r} is unknown; expected one of {', '.join(PROVIDERS)}")
        if not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InputError(f"threads is {threads!r}; expected 0 (the engine's choice) to {MAX_THREADS}")
        try:
            import onnxruntime
        except ImportError as error:
            raise ProviderError(
                "onnxruntime is not installed; install one engine, e.g. pip install 'dualsmooth[cpu]'"
            ) from error
        self.provider, self.version = provider, str(onnxruntime.__version__)
        self.name = f"onnxruntime {self.version}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._sessions: dict[str, Any] = {}
        self._takes_sigma: dict[str, bool] = {}
        for model in bundle.models():
            width = len(bundle.sigmas) if model == bundle.estimator else len(bundle.classes)
            for name in model.members:
                path = bundle.path / name
                try:
                    session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS[provider]])
                except Exception as error:
                    raise BundleError(
                        f"ONNX Runtime cannot load {path} ({one_line(error)}); export the bundle again"
                    ) from error
                if session.get_providers()[0] != PROVIDERS[provider]:
                    raise ProviderError(
                        f"provider {provider} was asked for but {session.get_providers()[0]} would run {name}"
                    )
                self._takes_sigma[name] = _check_graph(session, path, bundle.input_shape, width)
                self._sessions[name] = session
        for name, digest in bundle.files.items():  # nobody changed a file between the check and the load
            if sha256_of(bundle.path / name) != digest:
                raise BundleError(f"{bundle.path / name} changed while it was loaded; load the bundle again")

    def takes_sigma(self, model: BaseModel) -> bool:
        """Whether the model is conditional on the noise level (scalar input `sigma`)."""
        return any(self._takes_sigma[name] for name in model.members)

    def file_takes_sigma(self, name: str) -> bool:
        """Whether one ONNX file has the scalar input `sigma`."""
        return self._takes_sigma[name]

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        """The arg-max class [m] of each noisy input in `batch` [m,C,H,W]. Raises `EngineError` on any failure."""
        if len(model.members) == 1:
            return np.asarray(self._logits(model.members[0], batch, sigma, width).argmax(1), np.int64)
        return self._ensemble(model, batch, sigma, width)

    def _ensemble(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        """Mean of the members' logits; with K-consensus, inputs on which the first K members agree stop there
        (Horváth et al. 2022, "Boosting Randomized Smoothing with Variance Reduced Classifiers", section 5)."""
        first = model.consensus or len(model.members)
        logits = [self._logits(name, batch, sigma, width) for name in model.members[:first]]
        picks = np.stack([member.argmax(1) for member in logits])
        total = np.asarray(np.stack(logits).sum(0, dtype=np.float64))
        open_rows = np.flatnonzero((picks != picks[0]).any(0)) if model.consensus else np.arange(len(batch))
        rest = np.ascontiguousarray(batch[open_rows])
        for name in model.members[first:]:
            if len(rest):
                total[open_rows] += self._logits(name, rest, sigma, width)
        votes: npt.NDArray[np.int64] = picks[0].astype(np.int64)
        votes[open_rows] = total[open_rows].argmax(1)
        return votes

    def _logits(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        feed: dict[str, Any] = {"x": batch}
        if self._takes_sigma[name]:
            feed["sigma"] = np.asarray(sigma, np.float32)
        try:
            (logits,) = self._sessions[name].run(["logits"], feed)
        except Exception as error:
            raise EngineError(
                f"{name} failed on {self.provider} ({one_line(error)}); no certificate is issued"
            ) from error
        return checked_logits(name, logits, len(batch), width)


def checked_logits(name: str, logits: object, rows: int, width: int) -> npt.NDArray[np.float32]:
    """`logits` if they are finite and [rows,width]; else `EngineError`: a failure never becomes a vote."""
    if not isinstance(logits, np.ndarray) or logits.shape != (rows, width):
        raise EngineError(f"{name} returned shape {getattr(logits, 'shape', None)}; expected {(rows, width)}")
    if logits.dtype.kind != "f":
        raise EngineError(f"{name} returned {logits.dtype} logits; expected float32")
    if not np.isfinite(logits).all():
        raise EngineError(f"{name} returned NaN or infinite logits; no certificate is issued")
    return logits


def _check_graph(session: Any, path: Any, shape: tuple[int, int, int], width: int) -> bool:
    """Inputs `x` float32 [N,C,H,W] and optionally scalar `sigma`, output `logits` float32 [N,width], N dynamic."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    found = ", ".join(f"{v.name} {v.type} {v.shape}" for v in [*inputs.values(), *outputs.values()])
    good = set(inputs) in ({"x"}, {"x", "sigma"}) and set(outputs) == {"logits"}
    good = good and all(v.type == "tensor(float)" for v in [*inputs.values(), *outputs.values()])
    good = good and _fits(inputs["x"].shape, shape) and _fits(outputs["logits"].shape, (width,))
    if not good:
        raise BundleError(
            f"{path} has {found[:300]}; expected x float32 [N,{','.join(map(str, shape))}] and logits float32 "
            f"[N,{width}] with dynamic N"
        )
    return "sigma" in inputs


def _fits(declared: list[Any], wanted: tuple[int, ...]) -> bool:
    """Whether a declared shape is [dynamic, *wanted]; a named (unknown) inner size is left to the run-time check."""
    inner = declared[1:] if declared else []
    return (
        len(declared) == len(wanted) + 1
        and not isinstance(declared[0], int)
        and all(not isinstance(d, int) or d == w for d, w in zip(inner, wanted, strict=True))
    )
