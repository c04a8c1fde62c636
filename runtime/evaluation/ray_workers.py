"""Evaluations on a Ray cluster: actors hold engines, blocks of images are tasks, a dead worker's block is redone.

The driver alone writes the results file; workers get pixels and the bundle's bytes, so they need neither the data set
nor a shared folder, only an installed dualsmooth. What a worker sends back is a certificate's JSON, recomputed on
arrival.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import DualSmoothError, EngineError, InputError, one_line
from dualsmooth.runtime.evaluation.evaluate import Finished
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.smoothing.smoother import Smoother, load

DEATHS = 3
"""Workers that one block of images may take down before the evaluation gives up on it."""
OBJECT_STORE = 150_000_000
"""Bytes of shared memory for blocks of images on a cluster that is started here; the bundle comes on top."""


class RayWorkers:
    """Certifies on the Ray cluster at `address` (or `RAY_ADDRESS`); without one, on a cluster started here.

    `workers` actors (0: as many as the cluster has room for), each with `cpus` cores, `gpus` GPUs (fractions share one)
    and an engine of its own; `block` images a task. Use as a context manager: a cluster that was started here is
    stopped.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str = "cpu",
        *,
        batch_size: int | str = 256,
        threads: int = 0,
        provider_options: Mapping[str, Any] | None = None,
        address: str | None = None,
        workers: int = 0,
        cpus: int = 1,
        gpus: float = 0.0,
        block: int = 8,
    ) -> None:
        if workers < 0 or cpus < 1 or gpus < 0 or block < 1:
            raise InputError(
                f"--workers {workers} --cpus-per-worker {cpus} --gpus-per-worker {gpus:g} --block {block}; expected "
                "positive numbers"
            )
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault("RAY_worker_niceness", "0")
            import ray
        except ImportError as error:
            raise InputError("--engine ray needs Ray; install it with pip install 'dualsmooth[ray]'") from error
        self.bundle: Bundle = read_bundle(path)
        self.provider = provider
        self._ray: Any = ray
        self._block = block
        self._engine = {
            "provider": provider,
            "batch_size": batch_size,
            "threads": threads or cpus,
            "provider_options": dict(provider_options or {}),
        }
        self._demand = {"num_cpus": cpus, "num_gpus": gpus}
        self._own = not ray.is_initialized()
        if self._own:
            size = sum((self.bundle.path / name).stat().st_size for name in self.bundle.files)
            _connect(ray, address or os.environ.get("RAY_ADDRESS"), cpus * workers, gpus * workers, 2 * size)
        room: dict[str, float] = self._ray.cluster_resources()
        fits = int(room.get("CPU", 0) // cpus)
        if gpus:
            fits = min(fits, int(room.get("GPU", 0) // gpus))
        self.workers = workers or fits
        if not 1 <= self.workers <= fits:
            self.close()
            raise InputError(
                f"the Ray cluster has room for {fits} workers of {cpus} CPUs and {gpus:g} GPUs, not for "
                f"{self.workers or 1}; ask for less, or start more nodes"
            )

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._own:
            self._ray.shutdown()

    def certify(self, dataset: Dataset, indices: Sequence[int], settings: Settings) -> Iterator[Finished]:
        """Certified images, block by block, as they are finished. Raises what a worker raises, and `EngineError` where
        a block takes `DEATHS` workers down."""
        ray = self._ray
        blocks = deque(tuple(indices[i : i + self._block]) for i in range(0, len(indices), self._block))
        actor = ray.remote(**self._demand)(_Worker)
        files = ray.put(
            {name: (self.bundle.path / name).read_bytes() for name in ("manifest.json", *self.bundle.files)}
        )
        count = min(self.workers, len(blocks))
        idle = [actor.remote(files, self._engine) for _ in range(count)]
        running: dict[Any, tuple[Any, tuple[int, ...]]] = {}
        deaths: Counter[tuple[int, ...]] = Counter()
        try:
            while blocks or running:
                while blocks and idle:
                    worker, block = idle.pop(), blocks.popleft()
                    task = worker.certify.remote(dataset.images[list(block)], block, settings)
                    running[task] = (worker, block)
                (task,), _ = ray.wait(list(running), num_returns=1)
                worker, block = running.pop(task)
                try:
                    rows = ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    if isinstance(cause, DualSmoothError):
                        raise cause from None
                    raise EngineError(f"a Ray worker failed ({one_line(cause)}); no certificate is issued") from error
                except ray.exceptions.RayError as error:  # the worker, or its node, is gone
                    deaths[block] += 1
                    if deaths[block] >= DEATHS:
                        raise EngineError(
                            f"{DEATHS} Ray workers died on images {block[0]} to {block[-1]} ({one_line(error)}); give "
                            "the workers more memory, or run without --engine ray"
                        ) from error
                    blocks.appendleft(block)
                    ray.kill(worker)
                    idle.append(actor.remote(files, self._engine))
                    continue
                idle.append(worker)
                for index, text, seconds in rows:
                    yield Finished(index, Certificate.from_json(text), seconds)
        finally:
            for worker in [*idle, *(worker for worker, _ in running.values())]:
                ray.kill(worker)


class _Worker:
    """One engine in a process of its own; loads the bundle with its first block."""

    def __init__(self, files: Mapping[str, bytes], engine: Mapping[str, Any]) -> None:
        self._files, self._engine = files, engine
        self._smoother: Smoother | None = None

    def certify(
        self, images: npt.NDArray[np.uint8], indices: tuple[int, ...], settings: Settings
    ) -> list[tuple[int, str, float]]:
        """Index, certificate (JSON) and seconds of each image [C,H,W] of a block."""
        if self._smoother is None:
            with tempfile.TemporaryDirectory(prefix="dualsmooth-") as folder:
                for name, data in self._files.items():
                    (Path(folder) / name).write_bytes(data)
                self._smoother = load(folder, **self._engine)
        meter = Meter()
        stream = self._smoother.certify_with(images, settings, indices=indices, meter=meter)
        return [
            (index, certificate.to_json(), round(meter.last, 6))
            for index, certificate in zip(indices, stream, strict=True)
        ]


def _connect(ray: Any, address: str | None, cpus: int, gpus: float, extra: int) -> None:
    """Join the cluster at `address`, or start one with room for `extra` more bytes of shared memory."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE + extra}
        size: dict[str, Any] = {"num_cpus": cpus} if cpus else {}
        quiet |= own | size | ({"num_gpus": int(-(-gpus // 1))} if gpus else {})
    try:
        ray.init(address=address or "local", **quiet)
    except Exception as error:
        where = f"at {address}" if address else "here"
        raise InputError(f"no Ray cluster {where} ({one_line(error)}); start one, or drop --ray-address") from error
