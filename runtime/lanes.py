"""Parts of batches side by side: as many single-threaded runs do more than one run that all threads share.

Threads that share a run wait for each other in every layer. Lanes take the parts of all started batches in turn, so a
lane that has no part of a batch left begins the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt

LEAST = 8
"""Fewest rows in a part: a call of the engine costs as much as a few rows do."""
PARTS = 2
"""Parts for each lane, if these have at least `ENOUGH` rows, so that a lane which is held up takes fewer; else one."""
ENOUGH = 32

Votes = Callable[[slice], npt.NDArray[np.int64]]


class Started:
    """The votes of a batch, on their way."""

    def __init__(self, rows: int, votes: Votes, parts: list[slice], pool: ThreadPoolExecutor | None) -> None:
        self._rows, self._votes, self._failed = rows, votes, False
        self._found = np.empty(rows, np.int64)
        self._futures: list[Future[None]] = [pool.submit(self._run, part) for part in parts] if pool else []

    def _run(self, part: slice) -> None:
        if self._failed:
            return
        try:
            self._found[part] = self._votes(part)
        except BaseException:
            self._failed = True
            raise

    def result(self) -> npt.NDArray[np.int64]:
        """The votes [rows]. Raises what a part raises, when no part is running any more."""
        if not self._futures:
            return self._votes(slice(0, self._rows))
        try:
            for part in wait(self._futures, return_when=FIRST_EXCEPTION).done:
                part.result()
        finally:
            self.cancel()
        return self._found

    def cancel(self) -> None:
        """Run no further part, and wait for those that are running: the batch may be overwritten then."""
        for part in self._futures:
            part.cancel()
        wait(self._futures)


class Lanes:
    """Runs parts of batches on `count` threads. One lane, or one part, is run by who asks for its votes.

    `spare`: threads besides, for engines that run parts on `count` threads of their own: one always has the next part.
    """

    def __init__(self, count: int, spare: int = 0) -> None:
        self.count, self._spare = count, spare
        self._pool: ThreadPoolExecutor | None = None

    def parts(self, rows: int) -> list[slice]:
        """Parts of nearly the same size that cover `rows` rows."""
        wanted = self.count * (PARTS if rows >= self.count * PARTS * ENOUGH else 1)
        number = max(1, min(wanted, rows // LEAST)) if self.count > 1 else 1
        return [slice(rows * i // number, rows * (i + 1) // number) for i in range(number)]

    def start(self, rows: int, votes: Votes) -> Started:
        """Have the `votes` of all parts of a batch taken, after those of the batches that were started before."""
        parts = self.parts(rows)
        if len(parts) == 1:
            return Started(rows, votes, parts, None)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count + self._spare, thread_name_prefix="dualsmooth-lane")
        return Started(rows, votes, parts, self._pool)
