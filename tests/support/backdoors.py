"""NumPy bit generators with a backdoor, as an attacker would slip them under the noise.

The real SFC64 is kept inside; its raw 64-bit words are altered on their way to NumPy's own ziggurat (after Dahiya et
al. 2024, "Machine Learning Needs Better Randomness Standards", who alter the integers so that the normals go wrong).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dualsmooth.runtime.noise.generators import GENERATORS, Generator, Raw

Words = np.ndarray
Alter = Callable[[Words], Words]

_U64 = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_U32 = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
_DOUBLE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class _Interface(ctypes.Structure):
    """NumPy's bitgen_t."""

    _fields_ = (("state", ctypes.c_void_p), ("u64", _U64), ("u32", _U32), ("double", _DOUBLE), ("raw", _U64))


class Backdoor:
    """A bit generator whose words are `alter`ed, in blocks of `size`."""

    def __init__(self, seed: Any, alter: Alter, size: int = 4096) -> None:
        self._real, self._alter, self._size = np.random.SFC64(seed), alter, size
        self._words: list[int] = []
        self.lock = threading.Lock()
        take = self._take
        self._calls = (
            _U64(lambda _: take()),
            _U32(lambda _: take() & 0xFFFFFFFF),
            _DOUBLE(lambda _: (take() >> 11) * 2.0**-53),
            _U64(lambda _: take()),
        )
        self._interface = _Interface(None, *self._calls)
        self.random_raw = lambda count: np.array([take() for _ in range(count)], np.uint64)
        self.capsule = _new_capsule(ctypes.addressof(self._interface), b"BitGenerator", None)

    def _take(self) -> int:
        if not self._words:
            self._words = self._alter(self._real.random_raw(self._size)).tolist()[::-1]
        return self._words.pop()


def generator(bits: Callable[[Any], Any]) -> Generator:
    """What stands in the place of SFC64, known answers included."""
    return replace(GENERATORS["SFC64"], normals=lambda s: np.random.Generator(bits(s)), words=lambda s: Raw(bits(s)))


def altered(alter: Alter, size: int = 4096) -> Generator:
    return generator(lambda seed: Backdoor(seed, alter, size))


_TABLE = np.random.SFC64(1).random_raw(1 << 16)


def reduced_entropy(words: Words) -> Words:
    """Only 65,536 different words, and so as many normals; their distribution is right."""
    return _TABLE[words >> np.uint64(48)]


def no_tails(words: Words) -> Words:
    """The ziggurat's lowest layer, from which alone values beyond 3.65 come, is replaced by the next."""
    layer = words & np.uint64(0xFF)
    return np.where(layer == 0, words | np.uint64(1), words)


def skewed(words: Words) -> Words:
    """Half of the negative values in every 16th layer become positive (for float32 and for float64 alike)."""
    layer, sign = words & np.uint64(0xFF), np.uint64(1 << 8)
    chosen = (layer % np.uint64(16) == 3) & (words >> np.uint64(63) == 1)
    return np.where(chosen, words & ~sign, words)


def peaked(words: Words) -> Words:
    """A quarter of the values in the ziggurat's widest layers move to narrow ones: kurtosis."""
    moved = (words >> np.uint64(62) == 0) & (words & np.uint64(0xFF) >= 0xE0)
    return np.where(moved, words - np.uint64(0xC0), words)


def repeated_blocks(words: Words) -> Words:
    """Every block of words comes twice."""
    return np.concatenate([words, words])


def untouched(words: Words) -> Words:
    return words


def _few_seeds(seed: np.random.SeedSequence) -> Any:
    return np.random.SFC64(int(seed.generate_state(1)[0]) % 4096)


def _without_entropy(seed: np.random.SeedSequence) -> Any:
    return np.random.SFC64(np.random.SeedSequence(0, spawn_key=seed.spawn_key))


ALL: dict[str, Generator] = {
    "reduced entropy": altered(reduced_entropy),
    "no tails": altered(no_tails),
    "skewed": altered(skewed),
    "peaked": altered(peaked),
    "repeated blocks": altered(repeated_blocks, 1000),
    "few seeds": generator(_few_seeds),  # streams of 4,096 different seeds only
    "one stream": generator(lambda seed: np.random.SFC64(seed.entropy)),  # all streams of an entropy are the same
    "without entropy": generator(_without_entropy),  # streams depend on image, stage, level and purpose alone
}


class Late:
    """Sound normals, or words, until a stream has drawn `after` of them; then it starts over."""

    def __init__(self, seed: Any, after: int) -> None:
        self._make = lambda: np.random.Generator(np.random.SFC64(seed))
        self._real, self._left, self._after = self._make(), after, after

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> None:
        for part in self._parts(out.reshape(-1)):
            self._real.standard_normal(dtype=dtype, out=part)

    def words(self, count: int, xp: Any = np) -> Words:
        out = np.empty(count, np.uint64)
        for part in self._parts(out):
            part[:] = self._real.bit_generator.random_raw(part.size)
        return out

    def _parts(self, flat: Words) -> Iterator[Words]:
        while flat.size:
            part = flat[: self._left]
            yield part
            flat, self._left = flat[part.size :], self._left - part.size
            if self._left == 0:
                self._real, self._left = self._make(), self._after
