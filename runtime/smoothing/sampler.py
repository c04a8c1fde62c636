"""The driver: many images in flight, their requests packed into full batches for each base model.

While the engine runs a batch, a worker thread makes the noise of the next one and starts it (ONNX Runtime and NumPy
both release Python's lock), so that the engine need not wait for noise, nor for votes to be counted. Only passes that
are certainly wanted are made ahead, each stream draws from its own generator in order, and one thread at a time draws:
counts are the same as without the worker, whatever the packing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.lanes import Started
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.forks import forks, require_same_process
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.noise.watch import Watched, sound_stream
from dualsmooth.runtime.statistics.votes import ESTIMATOR, Counts, Requests, Stream, Tally

PATIENCE = 3
"""How many batches a group may be passed over where jobs take turns."""


class VotingEngine(Protocol):
    """What the driver needs of an engine. `xp`: the array module of its batches."""

    xp: Any

    def takes_sigma(self, model: BaseModel) -> bool: ...

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]: ...

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started: ...


@dataclass(eq=False)
class Job:
    """One image on its way: float32 [C,H,W], its seed, its votes, and the process that asks for more."""

    image: npt.NDArray[np.float32]
    seed: Seed
    tally: Tally
    requests: Requests
    open: int = 0
    generators: dict[Stream, Watched] = field(default_factory=dict)


@dataclass(eq=False)
class _Work:
    """An unfinished request: how many passes are in no batch yet, how many are not counted yet, and the counts."""

    job: Job
    stream: Stream
    sigma: float
    left: int
    due: int
    counts: Counts


class _Group(NamedTuple):
    """Passes that may share a batch: same base model, and same sigma where the model is conditional on it."""

    model: BaseModel
    sigma: float | None


class _Batch(NamedTuple):
    """Rows `parts` (work, from, to) of one buffer, all for one base model."""

    group: _Group
    parts: list[tuple[_Work, int, int]]
    buffer: Any
    filled: int


class Sampler:
    """Runs jobs through an engine. Memory is constant in the number of passes and of jobs: two batches of
    `batch_size` noisy copies and at most `in_flight` jobs."""

    def __init__(
        self,
        bundle: Bundle,
        engine: VotingEngine,
        *,
        batch_size: int = 256,
        in_flight: int = 16,
        fair: bool = False,
        ahead: bool = True,
    ) -> None:
        """`fair`: jobs take turns, so that a long one does not keep the short ones waiting (a server wants that).
        `ahead`: make noise on a worker thread while the engine runs."""
        self.bundle, self.engine, self.in_flight, self.fair = bundle, engine, in_flight, fair
        self.batch_jobs: list[Job] = []
        self.batch_passes = 0
        self._size, self._makes_ahead, self._forks = batch_size, ahead, forks()
        self._buffers = deque(
            engine.xp.empty((batch_size, *bundle.input_shape), np.float32) for _ in range(2 if ahead else 1)
        )
        self._passed: dict[_Group, int] = {}
        self._queues: dict[_Group, deque[_Work]] = {}
        self._ahead: tuple[_Batch, Future[Started]] | None = None
        self._worker: ThreadPoolExecutor | None = None

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Finished jobs, in the order in which they were given. An engine failure ends the run: no job that lacks votes
        is ever returned. An error of `jobs` itself (a bad image, say) comes after the jobs that were before it."""
        self.close()
        try:
            yield from self._run(jobs)
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

    def _run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        source = iter(jobs)
        waiting: deque[Job] = deque()
        more, failure = True, None
        while True:
            while more and len(waiting) < self.in_flight:
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
            if more and len(waiting) < self.in_flight:
                continue
            if not waiting:
                if failure is not None:
                    raise failure
                return
            self.step()

    def add(self, job: Job) -> None:
        """Queue a job without `run`, for a caller that keeps its own books: it is finished when `job.open` is 0."""
        self._advance(job)

    def step(self) -> None:
        """Run one batch of the added jobs. Where it raises, `batch_jobs` lack its votes: drop them. Raises
        `EngineError` in a child that was forked since they were added: their noise is the parent's."""
        require_same_process(self._forks, "this run")
        batch, begun = self._ahead or (self._planned(), None)
        self._ahead = None
        self.batch_jobs, self.batch_passes = [work.job for work, _, _ in batch.parts], batch.filled
        if begun is None:
            self._make(batch)
        self._look_ahead()
        votes = self.engine.votes(*_inputs(batch)) if begun is None else begun.result().result()
        for work, start, stop in batch.parts:
            work.counts += np.bincount(votes[start:stop], minlength=len(work.counts))
            work.due -= stop - start
            if work.due == 0:
                work.job.tally.record(work.stream, work.counts)
                work.job.open -= 1
                if work.job.open == 0:
                    self._advance(work.job)

    def drop(self, job: Job) -> None:
        """Forget a job: none of its remaining passes are drawn or counted."""
        for group in list(self._queues):
            kept = deque(work for work in self._queues[group] if work.job is not job)
            if kept:
                self._queues[group] = kept
            else:
                del self._queues[group]
        if self._ahead is not None:
            batch, begun = self._ahead
            alive = [part for part in batch.parts if part[0].job is not job]
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
                if stream.stage == ESTIMATOR:
                    model, sigma = self.bundle.router
                else:
                    model, sigma = self.bundle.classifiers[stream.level], self.bundle.sigmas[stream.level]
                group = _Group(model, sigma if self.engine.takes_sigma(model) else None)
                self._queues.setdefault(group, deque()).append(_Work(job, stream, sigma, left, left, counts.copy()))
                job.open += 1

    def _look_ahead(self) -> None:
        """Have the next batch begun if it is full: a shorter one may still be joined by what the votes to come ask."""
        if not (self._makes_ahead and self._queues):
            return
        group, passed = self._turn()
        if self._waiting(group) < self._size:
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="dualsmooth-noise")
        batch = self._planned(group, passed)
        try:
            begun = self._worker.submit(self._begin, batch)
        except RuntimeError:  # Python is shutting down and starts no more threads
            begun = Future()
            begun.set_result(self._begin(batch))
        self._ahead = batch, begun

    def _waiting(self, group: _Group) -> int:
        """Passes of a group that are in no batch yet, up to a full batch."""
        return min(self._size, sum(work.left for work in self._queues[group]))

    def _turn(self) -> tuple[_Group, dict[_Group, int]]:
        """The group whose turn it is: the one with the most passes to draw; where jobs take turns, unless another was
        passed over `PATIENCE` times in a row. And how often each group will then have been passed over."""
        group = max(self._queues, key=self._waiting)
        if not self.fair:
            return group, {}
        passed = {other: self._passed.get(other, 0) + 1 for other in self._queues}
        longest = max(passed, key=lambda other: passed[other])
        group = longest if passed[longest] > PATIENCE else group
        return group, passed | {group: 0}

    def _planned(self, group: _Group | None = None, passed: dict[_Group, int] | None = None) -> _Batch:
        """Take the passes of the next batch from the queue of `group` (default: of the group whose turn it is)."""
        if group is None or passed is None:
            group, passed = self._turn()
        self._passed = passed
        queue = self._queues[group]
        parts: list[tuple[_Work, int, int]] = []
        filled = 0
        while queue and filled < self._size:
            work = queue[0]
            size = min(work.left, self._size - filled)
            parts.append((work, filled, filled + size))
            work.left -= size
            filled += size
            if work.left == 0:
                queue.popleft()
        if self.fair and queue and queue[0] is parts[-1][0]:
            queue.rotate(-1)
        if not queue:
            del self._queues[group]
        self._buffers.rotate()
        return _Batch(group, parts, self._buffers[0], filled)

    def _begin(self, batch: _Batch) -> Started:
        self._make(batch)
        return self.engine.start(*_inputs(batch))

    def _make(self, batch: _Batch) -> None:
        """Noisy copies for every row of a batch."""
        for work, start, stop in batch.parts:
            job = work.job
            generator = job.generators.get(work.stream)
            if generator is None:
                generator = job.generators[work.stream] = sound_stream(job.seed, work.stream, self.engine.xp)
            out = batch.buffer[start:stop]
            add_noise(generator, job.image, work.sigma, out, job.seed.noise.mode, xp=self.engine.xp)


def _inputs(batch: _Batch) -> tuple[BaseModel, Any, float, int]:
    """What an engine has to know of a batch."""
    first = batch.parts[0][0]
    return batch.group.model, batch.buffer[: batch.filled], first.sigma, len(first.counts)


def _stop(begun: Future[Started]) -> None:
    """Wait until nobody uses the buffer of a batch whose votes are not wanted any more."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()
