"""What a start-up test cannot see, watched while certificates are made: streams that coincide, streams that restart.

An alarm takes `WINDOW` equal values in a row; sound noise shows them with probability at most 2^-92 a pair of places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise.forks import ForkLock
from dualsmooth.runtime.noise.selftest import WINDOW, require_sound
from dualsmooth.runtime.noise.streams import Normals, Seed
from dualsmooth.runtime.statistics.votes import Stream

REMEMBERED = 1 << 15
"""Beginnings of streams that are kept, the newest ones: constant memory."""

_lock = ForkLock()
_begun: dict[bytes, int] = {}


def sound_stream(seed: Seed, stream: Stream, xp: Any = np) -> Normals:
    """The normals of one stream for arrays of `xp`, of a generator that passed its self-test, watched. Raises
    `EngineError`."""
    require_sound(seed.noise, xp)
    image = -1 if seed.noise.shared else seed.index
    level = -1 if seed.noise.shared else stream.level
    identity = hash((seed.noise, seed.key(shared=seed.noise.shared), image, stream._replace(level=level)))
    return Watched(seed.generator(stream), identity)


class Watched:
    """Passes normals on. Raises `EngineError` where a stream begins as another one did, or comes back to its beginning.

    Costs one comparison a value. Arrays of other libraries are passed on unseen.
    """

    def __init__(self, inner: Normals, identity: int) -> None:
        self.inner, self._identity = inner, identity
        self._start: npt.NDArray[Any] | None = None

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> Any:
        self.inner.standard_normal(dtype=dtype, out=out)
        if not isinstance(out, np.ndarray):
            return
        values = out.reshape(-1)
        if self._start is not None:
            self._restarts(values, self._start)
        elif values.size >= WINDOW:
            self._start = values[:WINDOW].copy()
            self._begins()
            self._restarts(values[1:], self._start)

    def _begins(self) -> None:
        assert self._start is not None
        with _lock:
            other = _begun.setdefault(self._start.tobytes(), self._identity)
            if len(_begun) > REMEMBERED:
                del _begun[next(iter(_begun))]
        if other != self._identity:
            raise EngineError("noise generator: two streams are equal; no certificate is issued")

    def _restarts(self, values: npt.NDArray[Any], start: npt.NDArray[Any]) -> None:
        same = values == start[0]
        if not (same.size and same[same.argmax()]):  # several times faster than any() or nonzero()
            return
        for at in np.flatnonzero(same):
            if at + WINDOW <= values.size and np.array_equal(values[at : at + WINDOW], start):
                raise EngineError("noise generator: a stream starts over; no certificate is issued")
