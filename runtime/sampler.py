"""The driver: many images in flight, their requests packed into full batches for each base model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle import BaseModel, Bundle
from dualsmooth.runtime.certification import Requests
from dualsmooth.runtime.noise import Normals, Seed, add_noise
from dualsmooth.runtime.votes import ESTIMATOR, Counts, Stream, Tally
from dualsmooth.runtime.watch import sound_stream

PATIENCE = 3
"""How many batches a group may be passed over where jobs take turns."""


class Voter(Protocol):
    """What the driver needs of an engine."""

    def takes_sigma(self, model: BaseModel) -> bool: ...

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]: ...


@dataclass(eq=False)
class Job:
    """One image on its way: float32 [C,H,W], its seed, its votes, and the process that asks for more."""

    image: npt.NDArray[np.float32]
    seed: Seed
    tally: Tally
    requests: Requests
    open: int = 0
    generators: dict[Stream, Normals] = field(default_factory=dict)


@dataclass(eq=False)
class _Work:
    """An unfinished request: what is still to draw, and what was counted so far."""

    job: Job
    stream: Stream
    sigma: float
    left: int
    counts: Counts


class _Group(NamedTuple):
    """Passes that may share a batch: same base model, and same sigma where the model is conditional on it."""

    model: BaseModel
    sigma: float | None


class Sampler:
    """Runs jobs through an engine. Memory is constant in the number of passes and of jobs: one batch of
    `batch_size` noisy copies and at most `in_flight` jobs."""

    def __init__(
        self, bundle: Bundle, engine: Voter, *, batch_size: int = 256, in_flight: int = 16, fair: bool = False
    ) -> None:
        """`fair`: jobs take turns, so that a long one does not keep the short ones waiting (a server wants that)."""
        self.bundle, self.engine, self.in_flight, self.fair = bundle, engine, in_flight, fair
        self.batch_jobs: list[Job] = []
        self.batch_passes = 0
        self._passed: dict[_Group, int] = {}
        self._buffer = np.empty((batch_size, *bundle.input_shape), np.float32)
        self._queues: dict[_Group, deque[_Work]] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Finished jobs, in the order in which they were given. An engine failure ends the run: no job that lacks votes
        is ever returned. An error of `jobs` itself (a bad image, say) comes after the jobs that were before it."""
        self._queues.clear()
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
            self._step()

    def add(self, job: Job) -> None:
        """Queue a job without `run`, for a caller that keeps its own books: it is finished when `job.open` is 0."""
        self._advance(job)

    def step(self) -> None:
        """Run one batch of the added jobs. Where it raises, `batch_jobs` lack its votes: drop them."""
        self._step()

    def drop(self, job: Job) -> None:
        """Forget a job: none of its remaining passes are drawn."""
        for group in list(self._queues):
            kept = deque(work for work in self._queues[group] if work.job is not job)
            if kept:
                self._queues[group] = kept
            else:
                del self._queues[group]

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
                    model, sigma = self.bundle.estimator, self.bundle.sigma_e
                else:
                    model, sigma = self.bundle.classifiers[stream.level], self.bundle.sigmas[stream.level]
                group = _Group(model, sigma if self.engine.takes_sigma(model) else None)
                self._queues.setdefault(group, deque()).append(_Work(job, stream, sigma, left, counts.copy()))
                job.open += 1

    def _turn(self, fullest: _Group) -> _Group:
        """The group whose turn it is: the fullest, unless another was passed over `PATIENCE` times in a row."""
        passed = {group: self._passed.get(group, 0) + 1 for group in self._queues}
        waits = max(passed, key=lambda g: passed[g])
        group = waits if passed[waits] > PATIENCE else fullest
        self._passed = passed | {group: 0}
        return group

    def _step(self) -> None:
        """Run one batch of the group with the most passes to draw."""
        group = max(self._queues, key=lambda g: min(len(self._buffer), sum(w.left for w in self._queues[g])))
        if self.fair:
            group = self._turn(group)
        queue = self._queues[group]
        parts: list[tuple[_Work, int, int]] = []
        filled = 0
        while queue and filled < len(self._buffer):
            work = queue[0]
            size = min(work.left, len(self._buffer) - filled)
            generator = work.job.generators.get(work.stream)
            if generator is None:
                generator = work.job.generators[work.stream] = sound_stream(work.job.seed, work.stream)
            mode = work.job.seed.noise.mode
            add_noise(generator, work.job.image, work.sigma, self._buffer[filled : filled + size], mode)
            parts.append((work, filled, filled + size))
            work.left -= size
            filled += size
            if work.left == 0:
                queue.popleft()
        if self.fair and queue and queue[0] is parts[-1][0]:
            queue.rotate(-1)
        self.batch_jobs, self.batch_passes = [work.job for work, _, _ in parts], filled
        width = len(parts[0][0].counts)
        votes = self.engine.votes(group.model, self._buffer[:filled], parts[0][0].sigma, width)
        for work, start, stop in parts:
            work.counts += np.bincount(votes[start:stop], minlength=width)
            if work.left == 0:
                work.job.tally.record(work.stream, work.counts)
                work.job.open -= 1
                if work.job.open == 0:
                    self._advance(work.job)
        if not queue:
            del self._queues[group]
