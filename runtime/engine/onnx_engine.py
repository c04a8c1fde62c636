"""The engine on this machine: base models on ONNX Runtime."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.engine.checks import check_graph, check_rows, checked_logits, width_of
from dualsmooth.runtime.engine.device import run_bound
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.instruction_set import instruction_set
from dualsmooth.runtime.engine.lanes import Lanes
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.engine.trial import LEVELS, safe_level
from dualsmooth.runtime.engine.wheels import onnxruntime_for
from dualsmooth.runtime.errors import BundleError, EngineError, InputError, ProviderError, one_line
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.noise.forks import ForkLock, never_free, renew_in_children

MAX_THREADS = 1024
"""ONNX Runtime waits for ever where the system cannot make as many threads as it is asked for."""


class OnnxEngine(Engine):
    """Sessions for every ONNX file of a bundle on one execution provider.

    On CPUs, parts of a batch run side by side on one session (`Provider.lanes_and_threads`). Where new batch shapes are
    slow (GPUs), shorter batches are filled up with zeros to `batch_size`; those rows are cut off before votes are read.
    The provider is looked at after each session is made and after every run.
    """

    def __init__(
        self, bundle: Bundle, provider: Provider | None = None, *, threads: int = 0, batch_size: int = 256
    ) -> None:
        """`provider`: `Cpu()` by default. Raises `InputError`, `ProviderError` where it is not there, `BundleError`."""
        if not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InputError(f"threads is {threads!r}; expected 0 (the cores of this process) to {MAX_THREADS}")
        self._given_threads = threads
        self._on = provider = provider or Cpu()
        self._onnxruntime = onnxruntime_for(type(provider))
        lanes, self._threads = provider.lanes_and_threads(threads, math.prod(bundle.input_shape))
        super().__init__(
            provider.name,
            _name(provider, str(self._onnxruntime.__version__)),
            xp=provider.array_module(),
            lanes=Lanes(lanes, spare=provider.spare_lanes),
        )
        self._fixed = batch_size if provider.keeps_shape() else 0
        self._path, self._shape = bundle.path.absolute(), (batch_size, *bundle.input_shape)
        self._precision, self._files = bundle.precision, bundle.files
        self._sessions: dict[str, Any] = {}
        self._closed, self._opening = False, ForkLock()
        self._takes_sigma: dict[str, bool] = {}
        self._levels: dict[str, str] = {}
        for model in bundle.models():
            for name in model.members:
                self._take(bundle, name, width_of(bundle, model))
        if lowered := sorted({level for level in self._levels.values() if level != "all"}):
            self.name += f" (graph optimisation {', '.join(lowered)})"
        self._check_files()  # nobody changed one between the check and the load
        renew_in_children(self)

    def _take(self, bundle: Bundle, name: str, width: int) -> None:
        """Open one file of the bundle, and look at what it is."""
        path = bundle.path / name
        weights = [digest for file, digest in bundle.files.items() if file == name or file.endswith(".data")]
        self._levels[name] = safe_level(
            path,
            " ".join(weights),
            bundle.input_shape,
            rows=[self._fixed] if self._fixed else [1, 3],
            level=bundle.optimisation.get(name, "all"),
            provider=self._on,
            options=self._session_options(self._lanes.count),
        )
        self._sessions[name] = session = self._session(path, self._lanes.count)
        self._takes_sigma[name] = check_graph(session, path, bundle.input_shape, width)
        check_rows(path, lambda batch: self.logits(name, self.xp.asarray(batch), bundle.trial_level, width), bundle)

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
        return {
            "path": str(self._path),
            "provider": self.provider,
            "threads": self._given_threads,
            "provider_options": self._on.given(),
        }

    def close(self) -> None:
        self._closed, self._sessions = True, {}
        super().close()

    def _open(self, name: str) -> Any:
        """The session of a file: as it is, or opened again in a forked child. Raises `EngineError` where the engine was
        closed, `ProviderError` where the provider does not survive a fork, `BundleError` where a file changed."""
        if (session := self._sessions.get(name)) is not None:
            return session
        with self._opening:
            if self._closed:
                raise EngineError(f"the networks of {self._path} were closed; load the bundle again")
            if not self._on.survives_fork:
                raise ProviderError(
                    f"provider {self._on.where} was started before this process was forked, and does not survive that; "
                    "start processes with multiprocessing's spawn, or load the bundle in each of them"
                )
            if not self._sessions:
                opened = {known: self._session(self._path / known, self._lanes.count) for known in self._takes_sigma}
                self._check_files()
                self._sessions = opened
            return self._sessions[name]

    def _session_options(self, lanes: int) -> dict[str, str]:
        return self._on.session_options(threads=self._threads, lanes=lanes, shape=self._shape)

    def _settings(self, lanes: int, level: str) -> Any:
        settings = self._onnxruntime.SessionOptions()
        if level != "all":
            settings.graph_optimization_level = getattr(self._onnxruntime.GraphOptimizationLevel, LEVELS[level])
        settings.intra_op_num_threads = max(1, self._threads - lanes + 1) if self._threads else 0  # each lane is one
        settings.log_severity_level = 4  # what fails is raised
        self._on.tune(settings)
        return settings

    def _session(self, path: Path, lanes: int) -> Any:
        """A session that `lanes` callers share, with all threads between them."""
        try:
            session = self._onnxruntime.InferenceSession(
                str(path),
                self._settings(lanes, self._levels[path.name]),
                providers=[self._on.onnxruntime_name],
                provider_options=[self._session_options(lanes)],
                enable_fallback=0,  # else the Python wrapper tries again on the CPU
            )
        except Exception as error:
            raise self._on.not_opened(path, self._precision, error) from error
        self._check_provider(session, path.name)
        return session

    def _check_provider(self, session: Any, name: str) -> None:
        runs = session.get_providers()[0]
        if runs != self._on.onnxruntime_name:
            reason = self._on.why_missing()
            raise ProviderError(
                f"provider {self.provider} was asked for but {runs} runs {name}"
                + (f": {reason}" if reason else "; see `dualsmooth doctor`")
            )

    def optimisation(self, name: str) -> str:
        """The level of graph optimisation of one ONNX file: all, or what ONNX Runtime survives."""
        return self._levels[name]

    def session(self, name: str) -> Any:
        """ONNX Runtime's session of one file with all threads for one caller, for measurements beside it."""
        return self._open(name) if self._lanes.count == 1 else self._session(self._path / name, 1)

    def file_takes_sigma(self, name: str) -> bool:
        return self._takes_sigma[name]

    def logits(self, name: str, batch: npt.NDArray[np.float32], sigma: float, width: int) -> npt.NDArray[np.float32]:
        session, rows = self._open(name), len(batch)
        level = np.asarray(sigma, np.float32) if self._takes_sigma[name] else None
        try:
            if self.xp is np:
                whole = self._filled_up(batch)
                (logits,) = session.run(["logits"], {"x": whole} | ({} if level is None else {"sigma": level}))
            else:
                with batch.device:  # type: ignore[attr-defined]
                    whole = self._filled_up(batch)
                    logits = run_bound(session, whole, level, self._on.location())
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


def _name(provider: Provider, version: str) -> str:
    """What a certificate says of the engine: ONNX Runtime's version, and what of the options and of this processor
    decides how it rounds."""
    how = provider.arithmetic()
    name = f"onnxruntime {version}" + (f" ({how})" if how else "")
    return f"{name}, {instruction_set()}" if provider.by_instruction_set else name
