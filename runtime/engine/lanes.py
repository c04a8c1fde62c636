"""Parts of batches side by side: as many single-threaded runs do more than one run that all threads share.

Threads that share a run wait for each other in every layer. Lanes take the parts of all started batches in turn, so a
lane that has no part of a batch left begins the next batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Condition

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import EngineError

LEAST = 8
"""Fewest rows in a part: a call of the engine costs as much as a few rows do."""
PARTS = 2
"""Parts for each lane, if these have at least `ENOUGH` rows, so that a lane which is held up takes fewer; else one."""
ENOUGH = 32

Votes = Callable[[slice], npt.NDArray[np.int64]]


class Lanes:
    """Runs parts of batches on `count` threads; in `run`, the caller's is one of them.

    `spare`: threads besides, for engines that run parts on `count` threads of their own: one always has the next part.
    """

    def __init__(self, count: int, spare: int = 0) -> None:
        self.count, self._spare = count, spare
        self._left: deque[tuple[Started, slice]] = deque()
        self.news = Condition()
        self._pool: ThreadPoolExecutor | None = None

    def renewed(self) -> Lanes:
        """Lanes like these without anything of theirs: for a forked child, where their threads are not."""
        return Lanes(self.count, self._spare)

    def close(self) -> None:
        """End the threads, after what they run now. The next batch starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def parts(self, rows: int) -> list[slice]:
        """Parts of nearly the same size that cover `rows` rows."""
        wanted = self.count * (PARTS if rows >= self.count * PARTS * ENOUGH else 1)
        number = max(1, min(wanted, rows // LEAST)) if self.count > 1 else 1
        return [slice(rows * i // number, rows * (i + 1) // number) for i in range(number)]

    def run(self, rows: int, votes: Votes) -> npt.NDArray[np.int64]:
        """The `votes` [rows] of a batch. Raises what a part raises, when no part is running any more."""
        started = self._start(rows, votes, self.count - 1)
        try:
            self._work(only=started)
            return started.result()
        finally:
            started.cancel()

    def start(self, rows: int, votes: Votes) -> Started:
        """Have the `votes` of a batch taken, after those of the batches that were started before, while the caller does
        something else. A batch of one part waits until it is asked for."""
        return self._start(rows, votes, self.count)

    def _start(self, rows: int, votes: Votes, threads: int) -> Started:
        parts = self.parts(rows)
        started = Started(self, rows, votes, parts)
        if len(parts) > 1:
            with self.news:
                self._left.extend((started, part) for part in parts)
            try:
                for _ in range(min(len(parts), threads + self._spare)):
                    self._threads().submit(self._work)
            except RuntimeError:  # Python is shutting down and starts no more threads: the caller runs all parts
                self._work(only=started)
        return started

    def _threads(self) -> ThreadPoolExecutor:
        if (pool := self._pool) is None:
            pool = self._pool = ThreadPoolExecutor(self.count + self._spare, thread_name_prefix="dualsmooth-lane")
        return pool

    def _work(self, only: Started | None = None) -> None:
        """Run parts until none is left; those of one batch, or of all."""
        while True:
            with self.news:
                entry = next((entry for entry in self._left if only in (None, entry[0])), None)
                if entry is None:
                    return
                self._left.remove(entry)
            started, part = entry
            started.run(part)


class Started:
    """The votes of a batch, on their way."""

    def __init__(self, lanes: Lanes, rows: int, votes: Votes, parts: list[slice]) -> None:
        self._lanes, self._votes, self._parts = lanes, votes, parts
        self._found = np.empty(rows, np.int64)
        self._open, self._running, self._over = len(parts), 0, False
        self._error: BaseException | None = None

    def run(self, part: slice) -> None:
        """Take the votes of a part, unless the batch was given up."""
        with self._lanes.news:
            if self._over:
                return
            self._running += 1
        error = None
        try:
            self._found[part] = self._votes(part)
        except BaseException as raised:
            error = raised
        with self._lanes.news:
            self._running -= 1
            self._open -= 1
            if error is not None:
                self._error, self._over = self._error or error, True
            if self._over or self._open == 0:  # each waking of the caller would take a core from a lane
                self._lanes.news.notify_all()

    def result(self) -> npt.NDArray[np.int64]:
        """The votes [rows]. Raises what a part raises, when no part is running any more; `EngineError` where the batch
        was cancelled before."""
        if len(self._parts) == 1:
            return self._votes(self._parts[0])
        try:
            with self._lanes.news:
                self._lanes.news.wait_for(lambda: self._open == 0 or self._over)
        finally:
            self.cancel()
        if self._error is not None:
            raise self._error
        if self._open:
            raise EngineError("a batch was given up before all its votes were there; no certificate is issued")
        return self._found

    def cancel(self) -> None:
        """Run no further part, and wait for those that are running: the batch may be overwritten then."""
        with self._lanes.news:
            self._over = True
            self._lanes.news.wait_for(lambda: self._running == 0)
