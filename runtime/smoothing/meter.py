"""What a run has spent, in passes and seconds, in all and on each image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


class Spender(Protocol):
    """Work that is paid in seconds: an image on its way."""

    seconds: float


@dataclass
class Meter:
    """Counts `passes` and `seconds` of the batches of a run. A batch's seconds (noise, networks, counting, bounds) are
    shared among its images by their passes: the seconds of all images add up to those of the run, and the time in which
    nobody asks for more certificates is no image's.

    `last`: seconds of the image whose certificate was given last. `watch` is called after every batch.
    """

    clock: Callable[[], float] = time.perf_counter
    watch: Callable[[Meter], None] | None = None
    passes: int = 0
    seconds: float = 0.0
    last: float = field(default=0.0, init=False)

    def batch(self, work: Callable[[], Iterable[tuple[Spender, int]]]) -> None:
        """Do the `work` of a batch, which says how many passes it has run for whom."""
        start = self.clock()
        shares = list(work())
        seconds, passes = max(0.0, self.clock() - start), sum(count for _, count in shares)
        for spender, count in shares:
            spender.seconds += seconds * count / passes
        self.passes += passes
        self.seconds += seconds
        if self.watch is not None:
            self.watch(self)


class Turns:
    """The seconds of requests that a server answers side by side: while n are on their way, each of them is charged an
    n-th of the time. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._lock, self._last = clock, threading.Lock(), clock()
        self._open, self._charged = 0, 0.0

    def begin(self) -> Turn:
        """A request goes out."""
        with self._lock:
            turn = Turn(self, self._charge())
            self._open += 1
            return turn

    def end(self, turn: Turn) -> None:
        """Its answer is here; twice does no harm."""
        with self._lock:
            charged = self._charge()
            if turn.open:
                turn.open, turn.seconds = False, charged - turn.begun
                self._open -= 1

    def _charge(self) -> float:
        now = self._clock()
        self._charged += max(0.0, now - self._last) / max(self._open, 1)
        self._last = now
        return self._charged


@dataclass
class Turn:
    """One request: what had been charged when it `begun`, and its `seconds` once it has ended."""

    turns: Turns
    begun: float
    open: bool = True
    seconds: float = 0.0

    def end(self) -> None:
        self.turns.end(self)
