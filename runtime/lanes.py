"""Parts of a batch side by side: as many single-threaded runs do more than one run that all threads share.

Threads that share a run wait for each other in every layer; parts of a batch wait for each other once, at its end.
There are more parts than lanes, so that a lane that the noise thread holds up takes fewer of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt

LEAST = 8
"""Fewest rows in a part: a call of the engine costs as much as a few rows do."""
PARTS = 2
"""Parts for each lane, if these have at least `ENOUGH` rows; else one."""
ENOUGH = 32


class Lanes:
    """Runs parts of a batch on `count` threads, the caller's among them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def parts(self, rows: int) -> list[slice]:
        """Parts of nearly the same size that cover `rows` rows."""
        wanted = self.count * (PARTS if rows >= self.count * PARTS * ENOUGH else 1)
        number = max(1, min(wanted, rows // LEAST)) if self.count > 1 else 1
        return [slice(rows * i // number, rows * (i + 1) // number) for i in range(number)]

    def run(self, rows: int, votes: Callable[[slice], npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """The votes [rows] of all parts. Raises what a part raises, when no part is running any more."""
        parts = self.parts(rows)
        if len(parts) == 1:
            return votes(parts[0])
        left, found = deque(parts), np.empty(rows, np.int64)

        def lane() -> None:
            try:
                while True:
                    try:
                        part = left.popleft()
                    except IndexError:
                        return
                    found[part] = votes(part)
            except BaseException:
                left.clear()
                raise

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="dualsmooth-lane")
        others = [self._pool.submit(lane) for _ in range(min(self.count, len(parts)) - 1)]
        try:
            lane()
        finally:
            wait(others)
        for other in others:
            other.result()
        return found
