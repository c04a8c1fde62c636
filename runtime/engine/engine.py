"""The engine: base models on ONNX Runtime. Turns noisy batches into votes; a failure never becomes a vote."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.device import array_module, run_bound
from dualsmooth.runtime.engine.instruction_set import instruction_set
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.engine.providers import (
    CPU,
    OPENVINO,
    PROVIDERS,
    EngineOptions,
    arithmetic,
    keeps_shape,
    lanes_and_threads,
    onnxruntime_for,
    provider_options,
    why_missing,
)
from dualsmooth.runtime.engine.trial import LEVELS, safe_level
from dualsmooth.runtime.errors import BundleError, EngineError, InputError, ProviderError, one_line
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.noise.forks import ForkLock, never_free, renew_in_children

ROW_TOLERANCE = 1e-3
"""How far rounding may move the logits of an image in other company, relative to the largest one."""
MAX_THREADS = 1024
"""ONNX Runtime waits for ever where the system cannot make as many threads as it is asked for."""
NO_CPU = {"session.disable_cpu_ep_fallback": "1"}
"""Settings of other providers: the CPU must not stand in for them."""


class Engine:
    """Sessions for every ONNX file of a bundle on one execution provider.

    On CPUs, parts of a batch run side by side on one session (`lanes_and_threads`). Where new batch shapes are slow
    (GPUs), shorter batches are filled up with zeros to `batch_size`; those rows are cut off before votes are read. The
    provider is looked at after each session is made and after every run.
    """

    xp: Any = np
    """The array module of batches: NumPy, or CuPy where noise is made on the device."""
    _fixed = 0
    _lanes = Lanes(1)
    _closed = False

    def __init__(
        self,
        bundle: Bundle,
        provider: str = CPU,
        *,
        threads: int = 0,
        batch_size: int = 256,
        options: EngineOptions | None = None,
    ) -> None:
        """Raises `InputError` for an unknown provider, `ProviderError` where it is not there, `BundleError`."""
        if not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InputError(f"threads is {threads!r}; expected 0 (the cores of this process) to {MAX_THREADS}")
        self._given_threads = threads
        self._options = options = options or EngineOptions.of(provider, None)
        self._onnxruntime = onnxruntime_for(provider)
        self.provider, self.version = provider, str(self._onnxruntime.__version__)
        how = arithmetic(provider, options)
        self.name = f"onnxruntime {self.version}" + (f" ({how})" if how else "")
        if provider in ("cpu", "openvino"):
            self.name += f", {instruction_set()}"
        self._where = provider + (f" on device {options.device}" if options.device else "")
        self.xp = array_module(provider, options)
        self._device = int(options.device) if options.device.isdecimal() else 0
        self._fixed = batch_size if keeps_shape(provider, options) else 0
        lanes, self._threads = lanes_and_threads(provider, options, threads, math.prod(bundle.input_shape))
        self._lanes = Lanes(lanes, spare=provider == OPENVINO)
        self._path, self._shape = bundle.path.absolute(), (batch_size, *bundle.input_shape)
        self._precision, self._files = bundle.precision, bundle.files
        self._sessions: dict[str, Any] = {}
        self._opening = ForkLock()
        self._takes_sigma: dict[str, bool] = {}
        self._levels: dict[str, str] = {}
        for model in bundle.models():
            width = len(bundle.sigmas) if model == bundle.estimator else len(bundle.classes)
            for name in model.members:
                path = bundle.path / name
                self._levels[name] = self._safe_level(bundle, name, lanes)
                session = self._session(path, lanes)
                self._takes_sigma[name] = _check_graph(session, path, bundle.input_shape, width)
                self._sessions[name] = session
                self._check_rows(name, bundle, width)
        if lowered := sorted({level for level in self._levels.values() if level != "all"}):
            self.name += f" (graph optimisation {', '.join(lowered)})"
        self._check_files()  # nobody changed one between the check and the load
        renew_in_children(self)

    def _check_files(self) -> None:
        for name, digest in self._files.items():
            if sha256_of(self._path / name) != digest:
                raise BundleError(f"{self._path / name} changed while it was loaded; load the bundle again")

    def after_fork(self) -> None:
        """In a forked child: new lanes, and sessions that are opened again when they are needed, since the threads of
        the old ones are not there and their locks may be held for ever."""
        self._lanes = self._lanes.renewed()
        for session in self._sessions.values():
            never_free(session)
        self._sessions = {}

    def settings(self) -> dict[str, Any]:
        """The arguments of `load`, as plain values, that open such an engine again. Raises `InputError`."""
        if type(self) is not Engine:
            raise InputError(f"a smoother on {self.name} cannot be pickled; load the bundle where it is needed")
        given = {f.name: getattr(self._options, f.name) for f in fields(EngineOptions)}
        tuned = {name: value for name, value in given.items() if value != getattr(EngineOptions, name)}
        return {
            "path": str(self._path),
            "provider": self.provider,
            "threads": self._given_threads,
            "provider_options": tuned,
        }

    def close(self) -> None:
        """End the threads and let go of the networks; what runs now is finished first by whoever waits for it."""
        self._closed, self._sessions = True, {}
        self._lanes.close()

    def _open(self, name: str) -> Any:
        """The session of a file: as it is, or opened again in a forked child. Raises `EngineError` where the engine was
        closed, `ProviderError` where the provider does not survive a fork, `BundleError` where a file changed."""
        if (session := self._sessions.get(name)) is not None:
            return session
        with self._opening:
            if self._closed:
                raise EngineError(f"the networks of {self._path} were closed; load the bundle again")
            if self.provider != CPU:
                raise ProviderError(
                    f"provider {self._where} was started before this process was forked, and does not survive that; "
                    "start processes with multiprocessing's spawn, or load the bundle in each of them"
                )
            if not self._sessions:
                opened = {known: self._session(self._path / known, self._lanes.count) for known in self._takes_sigma}
                self._check_files()
                self._sessions = opened
            return self._sessions[name]

    def _safe_level(self, bundle: Bundle, name: str, lanes: int) -> str:
        """The level of graph optimisation at which the engine survives the file."""
        weights = [digest for file, digest in bundle.files.items() if file == name or file.endswith(".data")]
        return safe_level(
            bundle.path / name,
            " ".join(weights),
            bundle.input_shape,
            rows=[self._fixed] if self._fixed else [1, 3],
            level=bundle.optimisation.get(name, "all"),
            provider=self.provider,
            options=self._provider_options(lanes),
            entries={} if self.provider == CPU else NO_CPU,
        )

    def _provider_options(self, lanes: int) -> dict[str, str]:
        return provider_options(self.provider, self._options, threads=self._threads, lanes=lanes, shape=self._shape)

    def _settings(self, lanes: int, level: str) -> Any:
        settings, options = self._onnxruntime.SessionOptions(), self._options
        if level != "all":
            settings.graph_optimization_level = getattr(self._onnxruntime.GraphOptimizationLevel, LEVELS[level])
        settings.intra_op_num_threads = max(1, self._threads - lanes + 1) if self._threads else 0  # each lane is one
        settings.log_severity_level = 4  # what fails is raised
        if self.provider == CPU:
            settings.enable_cpu_mem_arena = options.arena
            settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
        else:
            for entry, value in NO_CPU.items():
                settings.add_session_config_entry(entry, value)
        return settings

    def _session(self, path: Path, lanes: int) -> Any:
        """A session that `lanes` callers share, with all threads between them."""
        provider = self.provider
        try:
            session = self._onnxruntime.InferenceSession(
                str(path),
                self._settings(lanes, self._levels[path.name]),
                providers=[PROVIDERS[provider]],
                provider_options=[self._provider_options(lanes)],
                enable_fallback=0,  # else the Python wrapper tries again on the CPU
            )
        except Exception as error:
            if provider != CPU:
                reason = why_missing(provider) or (
                    f"it does not start or cannot run all of {path.name}, and the CPU must not stand in for it "
                    f"({one_line(error)}); see `dualsmooth doctor`"
                )
                raise ProviderError(f"provider {self._where}: {reason}") from error
            if self._precision == "bf16":
                raise ProviderError(
                    f"provider cpu has no bfloat16 arithmetic for {path.name} ({one_line(error)}); run the bundle on "
                    "cuda, tensorrt or openvino, or export it in another precision"
                ) from error
            raise BundleError(
                f"ONNX Runtime cannot load {path} ({one_line(error)}); export the bundle again"
            ) from error
        self._check_provider(session, path.name)
        return session

    def _check_provider(self, session: Any, name: str) -> None:
        runs = session.get_providers()[0]
        if runs != PROVIDERS[self.provider]:
            reason = why_missing(self.provider)
            raise ProviderError(
                f"provider {self.provider} was asked for but {runs} runs {name}"
                + (f": {reason}" if reason else "; see `dualsmooth doctor`")
            )

    def _check_rows(self, name: str, bundle: Bundle, width: int) -> bool:
        """Raises `BundleError` where the logits of one input depend on the others in its batch: its votes would not be
        independent. Two batches of three that differ in the middle; False where the network cannot run them, which it
        will say again."""
        normals = np.random.Generator(np.random.SFC64(0)).standard_normal((3, *bundle.input_shape), np.float32)
        batch = np.float32(0.5) + np.float32(bundle.sigma_e) * normals
        try:
            logits = []
            for middle in (batch[1], 4 * batch[1] + 1):
                batch[1] = middle
                logits.append(self._logits(name, self.xp.asarray(batch.copy()), bundle.sigma_e, width)[::2])
        except EngineError:
            return False
        apart = float(np.abs(np.subtract(*logits, dtype=np.float64)).max())
        if apart > ROW_TOLERANCE * max(float(np.abs(rows).max()) for rows in logits):
            raise BundleError(
                f"{bundle.path / name} lets one image of a batch change the logits of another by {apart:.3g}; export a "
                "network that treats each row alone (in eval mode, no reduction over the batch)"
            )
        return True

    def takes_sigma(self, model: BaseModel) -> bool:
        """Whether the model is conditional on the noise level (scalar input `sigma`)."""
        return any(self._takes_sigma[name] for name in model.members)

    def optimisation(self, name: str) -> str:
        """The level of graph optimisation of one ONNX file: all, or what the engine survives."""
        return self._levels[name]

    def session(self, name: str) -> Any:
        """ONNX Runtime's session of one file with all threads for one caller, for measurements beside it."""
        return self._open(name) if self._lanes.count == 1 else self._session(self._path / name, 1)

    def file_takes_sigma(self, name: str) -> bool:
        """Whether one ONNX file has the scalar input `sigma`."""
        return self._takes_sigma[name]

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        """The arg-max class [m] of each noisy input in `batch` [m,C,H,W]. Raises `EngineError` on any failure."""
        return self._lanes.run(len(batch), lambda rows: self._votes(model, batch[rows], sigma, width))

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started:
        """`votes` on their way, while the caller does something else."""
        return self._lanes.start(len(batch), lambda rows: self._votes(model, batch[rows], sigma, width))

    def _votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
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
        rest = self.xp.ascontiguousarray(batch[open_rows])
        for name in model.members[first:]:
            if len(rest):
                total[open_rows] += self._logits(name, rest, sigma, width)
        votes: npt.NDArray[np.int64] = picks[0].astype(np.int64)
        votes[open_rows] = total[open_rows].argmax(1)
        return votes

    def _logits(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        session, rows = self._open(name), len(batch)
        level = np.asarray(sigma, np.float32) if self._takes_sigma[name] else None
        try:
            if self.xp is np:
                whole = self._filled_up(batch)
                (logits,) = session.run(["logits"], {"x": whole} | ({} if level is None else {"sigma": level}))
            else:
                with batch.device:  # type: ignore[attr-defined]
                    whole = self._filled_up(batch)
                    logits = run_bound(session, whole, level, device="cuda", number=self._device)
        except Exception as error:
            raise EngineError(
                f"{name} failed on {self.provider} ({one_line(error)}); no certificate is issued"
            ) from error
        self._check_provider(session, name)
        return checked_logits(name, logits, len(whole), width, rows)

    def _filled_up(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`batch` with rows of zeros up to the fixed batch size, where there is one."""
        if len(batch) >= self._fixed:
            return batch
        whole = self.xp.zeros((self._fixed, *batch.shape[1:]), np.float32)
        whole[: len(batch)] = batch
        return whole  # type: ignore[no-any-return]


def warm_up(bundle: Bundle, engine: Engine, batch_size: int) -> Iterator[str]:
    """Run every base model once, one batch; yields what was run. Raises `EngineError`, `ProviderError`."""
    batch = engine.xp.full((batch_size, *bundle.input_shape), 0.5, np.float32)
    for model in bundle.models():
        engine.votes(model, batch, bundle.sigma_e, len(bundle.sigmas if model == bundle.estimator else bundle.classes))
        yield ", ".join(model.members)


def checked_logits(
    name: str, logits: object, rows: int, width: int, used: int | None = None
) -> npt.NDArray[np.float32]:
    """The first `used` rows (all by default) of `logits` if these are finite and all is [rows,width]; else
    `EngineError`: a failure never becomes a vote."""
    if not isinstance(logits, np.ndarray) or logits.shape != (rows, width):
        raise EngineError(f"{name} returned shape {getattr(logits, 'shape', None)}; expected {(rows, width)}")
    if logits.dtype.kind != "f":
        raise EngineError(f"{name} returned {logits.dtype} logits; expected float32")
    logits = logits[:used]
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
