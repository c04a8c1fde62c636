"""Which passes share a batch: the requests of many images wait in queues, one for each base model, and leave in full
batches. Knows nothing of noise and engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.noise.watch import Watched
from dualsmooth.runtime.statistics.votes import Counts, Requests, Stream, Tally

PATIENCE = 3
"""How many batches a group may be passed over where jobs take turns."""
Watch = Callable[[Stream, Counts, Counts | None], None]
"""Hears the counts so far of a stream, and of its sure votes where some may not be."""


@dataclass(eq=False)
class Job:
    """One image on its way: float32 [C,H,W], its seed, its votes, and the process that asks for more. `failure`: why it
    gets no further votes; `seconds`: its own so far (`Meter`). `watch` is told after each batch, of looks that are not
    full yet too; what it raises ends the run, and it changes nothing else."""

    image: npt.NDArray[np.float32]
    seed: Seed
    tally: Tally
    requests: Requests
    open: int = 0
    generators: dict[Stream, Watched] = field(default_factory=dict)
    failure: DualSmoothError | None = None
    seconds: float = 0.0
    watch: Watch | None = None


@dataclass(eq=False)
class Work:
    """An unfinished request: how many passes are in no batch yet, how many are not counted yet, and the counts, of sure
    votes too where some may not be."""

    job: Job
    stream: Stream
    sigma: float
    left: int
    due: int
    counts: Counts
    sure: Counts | None = None

    def count(self, votes: npt.NDArray[np.int64]) -> None:
        """Count votes [m] as an engine gives them."""
        width = len(self.counts)
        if self.sure is not None:
            self.sure += np.bincount(votes[votes < width], minlength=width)
            votes = votes % width
        self.counts += np.bincount(votes, minlength=width)
        self.due -= len(votes)


class Group(NamedTuple):
    """Passes that may share a batch: same base model, and same sigma where the model is conditional on it."""

    model: BaseModel
    sigma: float | None


class Part(NamedTuple):
    """Rows `start` to `stop` of a batch: passes of one request."""

    work: Work
    start: int
    stop: int


class Queues:
    """Passes that are in no batch yet. `size`: of a full batch. `fair`: jobs take turns."""

    def __init__(self, size: int, *, fair: bool = False) -> None:
        self.size, self.fair = size, fair
        self._queues: dict[Group, deque[Work]] = {}
        self._passed: dict[Group, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def clear(self) -> None:
        self._queues.clear()

    def add(self, group: Group, work: Work) -> None:
        self._queues.setdefault(group, deque()).append(work)

    def drop(self, job: Job) -> None:
        """Forget what a job asked for."""
        for group in list(self._queues):
            kept = deque(work for work in self._queues[group] if work.job is not job)
            if kept:
                self._queues[group] = kept
            else:
                del self._queues[group]

    def fill(self, batches: int) -> bool:
        """Whether some group has passes for so many full batches."""
        return any(self._left(group) >= batches * self.size for group in self._queues)

    def full(self) -> bool:
        """Whether the next batch is full."""
        return bool(self) and self._left(self._turn()[0]) >= self.size

    def take(self) -> tuple[Group, list[Part]]:
        """The next batch: passes of the group whose turn it is, up to `size`."""
        group, self._passed = self._turn()
        queue = self._queues[group]
        parts: list[Part] = []
        filled = 0
        while queue and filled < self.size:
            work = queue[0]
            count = min(work.left, self.size - filled)
            parts.append(Part(work, filled, filled + count))
            work.left -= count
            filled += count
            if work.left == 0:
                queue.popleft()
        if self.fair and queue and queue[0] is parts[-1].work:
            queue.rotate(-1)
        if not queue:
            del self._queues[group]
        return group, parts

    def _left(self, group: Group) -> int:
        return sum(work.left for work in self._queues[group])

    def _turn(self) -> tuple[Group, dict[Group, int]]:
        """The group whose turn it is: the one with the most passes to draw, up to a full batch; where jobs take turns,
        unless another was passed over `PATIENCE` times in a row. And how often each group will then have been passed
        over."""
        group = max(self._queues, key=lambda other: min(self.size, self._left(other)))
        if not self.fair:
            return group, {}
        passed = {other: self._passed.get(other, 0) + 1 for other in self._queues}
        longest = max(passed, key=lambda other: passed[other])
        group = longest if passed[longest] > PATIENCE else group
        return group, passed | {group: 0}
