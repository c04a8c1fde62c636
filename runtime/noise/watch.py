"""What a start-up test cannot see, watched while certificates are made: streams that coincide, streams that restart.

An alarm takes `WINDOW` equal values in a row; sound noise shows them with probability at most 2^-92 a pair of places.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise.forks import ForkLock
from dualsmooth.runtime.noise.selftest import WINDOW, require_sound
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.votes import Stream

REMEMBERED = 1 << 15
"""Beginnings of streams that are kept, the newest ones: constant memory."""

_lock = ForkLock()
_begun: dict[bytes, int] = {}


def sound_stream(seed: Seed, stream: Stream, xp: Any = np) -> Watched:
    """One stream for arrays of `xp`, of a generator that passed its self-test, watched. Raises `EngineError`."""
    require_sound(seed.noise, xp)
    image = -1 if seed.noise.shared else seed.index
    level = -1 if seed.noise.shared else stream.level
    identity = hash((seed.noise, seed.key(shared=seed.noise.shared), image, stream._replace(level=level)))
    return Watched(seed.generator(stream), identity)


class Watched:
    """Passes normals or words on. Raises `EngineError` where a stream begins as another one did, or comes back to its
    beginning.

    Costs one comparison a value. Arrays of other libraries are passed on unseen.
    """

    def __init__(self, inner: Any, identity: int) -> None:
        self._inner, self._identity = inner, identity
        self._start: npt.NDArray[Any] | None = None

    @property
    def on_device(self) -> bool:
        return bool(self._inner.on_device)

    @cached_property
    def rest(self) -> Watched:
        return Watched(self._inner.rest, hash((self._identity, "rest")))

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> None:
        self._inner.standard_normal(dtype=dtype, out=out)
        self._look_at(out)

    def words(self, count: int, xp: Any = np) -> Any:
        drawn = self._inner.words(count, xp)
        self._look_at(drawn)
        return drawn

    def _look_at(self, drawn: Any) -> None:
        if not isinstance(drawn, np.ndarray):
            return
        values = drawn.reshape(-1)
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
