"""The driver: many images in flight, their requests packed into full batches for each base model.

While the engine runs a batch, a worker thread makes the noise of the next one and starts it (ONNX Runtime and NumPy
both release Python's lock), so that the engine need not wait for noise, nor for votes to be counted. Only passes that
are certainly wanted are made ahead, each stream draws from its own generator in order, and one thread at a time draws:
counts are the same as without the worker, whatever the packing. An image whose noise or votes fail takes none of its
neighbours with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.lanes import Started
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.forks import forks, require_same_process
from dualsmooth.runtime.noise.watch import sound_stream
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.packing import Group, Job, Part, Queues, Work

__all__ = ["IN_FLIGHT", "Job", "Sampler", "VotingEngine"]

IN_FLIGHT = 64
"""Unfinished jobs at a time: decisions that ask for a dozen passes at a look fill batches together."""
WAITING = 2
"""Jobs in memory, finished ones that wait for an earlier one among them, for each that may be in flight."""


class VotingEngine(Protocol):
    """What the driver needs of an engine. `xp`: the array module of its batches."""

    xp: Any

    def takes_sigma(self, model: BaseModel) -> bool: ...

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]: ...

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started: ...


class _Batch(NamedTuple):
    """`parts` are rows of one buffer, all for one base model."""

    group: Group
    parts: list[Part]
    buffer: Any
    filled: int


class Sampler:
    """Runs jobs through an engine. Memory is constant in the number of passes and of jobs: two batches of
    `batch_size` noisy copies, and at most `WAITING` * `in_flight` jobs."""

    def __init__(
        self,
        bundle: Bundle,
        engine: VotingEngine,
        *,
        batch_size: int = 256,
        in_flight: int = IN_FLIGHT,
        fair: bool = False,
        ahead: bool = True,
    ) -> None:
        """`fair`: jobs take turns, so that a long one does not keep the short ones waiting (a server wants that).
        `ahead`: make noise on a worker thread while the engine runs."""
        self.bundle, self.engine, self.in_flight = bundle, engine, in_flight
        self.batch_passes = 0
        self._makes_ahead, self._forks = ahead, forks()
        self._buffers = deque(
            engine.xp.empty((batch_size, *bundle.input_shape), np.float32) for _ in range(2 if ahead else 1)
        )
        self._queues = Queues(batch_size, fair=fair)
        self._ahead: tuple[_Batch, Future[Started]] | None = None
        self._worker: ThreadPoolExecutor | None = None

    def run(self, jobs: Iterable[Job], meter: Meter | None = None) -> Iterator[Job]:
        """Finished jobs, in the order in which they were given. A failure ends the run in the turn of the job that it
        belongs to: no job that lacks votes is ever returned. So does an error of `jobs` itself (a bad image). `meter`
        counts what it costs."""
        self.close()
        try:
            yield from self._run(jobs, meter or Meter())
        finally:
            self.close()

    def close(self) -> None:
        """Forget all jobs and end the worker thread. The sampler can be used again."""
        self._queues.clear()
        if self._forks != forks():  # the worker is the parent's
            self._worker = self._ahead = None
            self._forks = forks()
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
            self._worker = None
        if self._ahead is not None:
            _stop(self._ahead[1])
            self._ahead = None

    def _run(self, jobs: Iterable[Job], meter: Meter) -> Iterator[Job]:
        source = iter(jobs)
        waiting: deque[Job] = deque()
        more, failure = True, None
        while True:
            while more and self._wants(waiting):
                try:
                    job = next(source, None)
                except Exception as error:
                    job, failure = None, error
                if job is None:
                    more = False
                else:
                    waiting.append(job)
                    self._advance(job)
            while waiting and waiting[0].open == 0:
                yield waiting.popleft()
            if waiting and waiting[0].failure:
                raise waiting[0].failure
            if more and self._wants(waiting):
                continue
            if not waiting:
                if failure is not None:
                    raise failure
                return
            meter.batch(self.step)

    def _wants(self, waiting: deque[Job]) -> bool:
        """Whether another job would be taken now: where jobs take turns, always, up to the limits; else as long as this
        batch and the next are not full."""
        unfinished = sum(job.open > 0 and not job.failure for job in waiting)
        if unfinished >= self.in_flight or len(waiting) >= WAITING * self.in_flight:
            return False
        return self._queues.fair or not self._queues.fill(2)

    def add(self, job: Job) -> None:
        """Queue a job without `run`, for a caller that keeps its own books: it is finished when `job.open` is 0."""
        self._advance(job)

    def step(self) -> list[tuple[Job, int]]:
        """Run one batch of the added jobs; returns whose passes they were, and how many. Where it fails, the jobs that
        it fails for have their `failure`, and are dropped. Raises `EngineError` in a child that was forked since they
        were added: their noise is the parent's."""
        require_same_process(self._forks, "this run")
        batch, begun = self._ahead or (self._planned(), None)
        self._ahead = None
        self.batch_passes = batch.filled
        if begun is None:
            self._make(batch)
        self._look_ahead()
        try:
            votes = self.engine.votes(*_inputs(batch)) if begun is None else begun.result().result()
        except DualSmoothError as error:
            self._run_apart(batch, error)
        else:
            for part in batch.parts:
                self._count(part, votes)
        for job in {part.work.job: None for part in batch.parts if part.work.job.failure}:
            self.drop(job)
        return [(part.work.job, part.stop - part.start) for part in batch.parts]

    def _run_apart(self, batch: _Batch, error: DualSmoothError) -> None:
        """Each part of a batch that failed by itself, on the noise that it has: a failure is that of the images that
        fail alone, and of all where none does (or there is one only)."""
        found: list[tuple[Part, npt.NDArray[np.int64]]] = []
        failed: dict[Job, DualSmoothError] = {}
        jobs = {part.work.job for part in batch.parts}
        for part in batch.parts if len(jobs) > 1 else ():
            work, start, stop = part
            alone = batch._replace(parts=[part], buffer=batch.buffer[start:stop], filled=stop - start)
            try:
                found.append((Part(work, 0, stop - start), self.engine.votes(*_inputs(alone))))
            except DualSmoothError as own:
                failed.setdefault(work.job, own)
        for job, reason in (failed or dict.fromkeys(jobs, error)).items():
            job.failure = job.failure or reason
        for part, votes in found:
            self._count(part, votes)

    def _count(self, part: Part, votes: npt.NDArray[np.int64]) -> None:
        work, start, stop = part
        if work.job.failure:
            return
        work.count(votes[start:stop])
        if work.job.watch is not None:
            work.job.watch(work.stream, work.counts.copy(), None if work.sure is None else work.sure.copy())
        if work.due == 0:
            work.job.tally.record(work.stream, work.counts, work.sure)
            work.job.open -= 1
            if work.job.open == 0:
                self._advance(work.job)

    def drop(self, job: Job) -> None:
        """Forget a job: none of its remaining passes are drawn or counted."""
        self._queues.drop(job)
        if self._ahead is not None:
            batch, begun = self._ahead
            alive = [part for part in batch.parts if part.work.job is not job]
            self._ahead = (batch._replace(parts=alive), begun) if alive else None
            if not alive:
                _stop(begun)

    def _advance(self, job: Job) -> None:
        """Resume the job's process and queue what it asks for next; it is finished when nothing is open."""
        while job.open == 0:
            requests = next(job.requests, None)
            if requests is None:
                return
            for stream, until in requests:
                counts = job.tally.counts(stream)
                left = until - int(counts.sum())
                if left <= 0:
                    continue
                model, sigma = self.bundle.asked(stream)
                group = Group(model, sigma if self.engine.takes_sigma(model) else None)
                sure = None
                if model.sure:
                    sure = job.tally.sure[stream][-1].copy() if stream in job.tally.sure else np.zeros_like(counts)
                self._queues.add(group, Work(job, stream, sigma, left, left, counts.copy(), sure))
                job.open += 1

    def _look_ahead(self) -> None:
        """Have the next batch begun if it is full: a shorter one may still be joined by what the votes to come ask."""
        if not (self._makes_ahead and self._queues.full()):
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="dualsmooth-noise")
        batch = self._planned()
        try:
            begun = self._worker.submit(self._begin, batch)
        except RuntimeError:  # Python is shutting down and starts no more threads
            begun = Future()
            begun.set_result(self._begin(batch))
        self._ahead = batch, begun

    def _planned(self) -> _Batch:
        """The passes of the next batch."""
        group, parts = self._queues.take()
        self._buffers.rotate()
        return _Batch(group, parts, self._buffers[0], parts[-1].stop)

    def _begin(self, batch: _Batch) -> Started:
        self._make(batch)
        return self.engine.start(*_inputs(batch))

    def _make(self, batch: _Batch) -> None:
        """Noisy copies for every row of a batch; zeros for jobs that fail, and for those that did."""
        for work, start, stop in batch.parts:
            out = batch.buffer[start:stop]
            try:
                if not work.job.failure:
                    self._draw(work, out)
            except DualSmoothError as error:
                work.job.failure = error
            if work.job.failure:
                out[...] = 0

    def _draw(self, work: Work, out: Any) -> None:
        job = work.job
        generator = job.generators.get(work.stream)
        if generator is None:
            generator = job.generators[work.stream] = sound_stream(job.seed, work.stream, self.engine.xp)
        add_noise(generator, job.image, work.sigma, out, job.seed.noise.mode, xp=self.engine.xp)


def _inputs(batch: _Batch) -> tuple[BaseModel, Any, float, int]:
    """What an engine has to know of a batch."""
    first = batch.parts[0].work
    return batch.group.model, batch.buffer[: batch.filled], first.sigma, len(first.counts)


def _stop(begun: Future[Started]) -> None:
    """Wait until nobody uses the buffer of a batch whose votes are not wanted any more."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()
