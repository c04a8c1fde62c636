"""Addressable normals and words: value i of a stream is a function of its key and i alone, on the CPU and on a GPU.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and Box-Muller: each block of four
32-bit words gives four float32 normals, two float64 ones, or two 64-bit words. The radius of a float32 normal has 40
bits, its angle 24: with 32 bits, tails would end at 6.66, and a 3 x 224 x 224 image would miss 9e-6 of its noise. The
CPU and a GPU round logarithms and cosines differently in the last bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_MASK = np.uint64(0xFFFFFFFF)
_FACTORS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_STEPS = (0x9E3779B9, 0xBB67AE85)

KERNEL = """
__device__ void philox_block(unsigned int* c, unsigned int k0, unsigned int k1) {
    for (int round = 0; round < 10; ++round) {
        unsigned long long p = 0xD2511F53ull * c[0], q = 0xCD9E8D57ull * c[2];
        c[0] = (unsigned int)(q >> 32) ^ c[1] ^ k0;
        c[1] = (unsigned int)q;
        c[2] = (unsigned int)(p >> 32) ^ c[3] ^ k1;
        c[3] = (unsigned int)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}
__device__ float normal_float(unsigned long long i, unsigned int k0, unsigned int k1, unsigned int c2,
                              unsigned int c3) {
    unsigned int c[4] = {(unsigned int)(i >> 2), (unsigned int)(i >> 34), c2, c3};
    philox_block(c, k0, k1);
    int pair = (int)(i & 2);
    float below = ((float)(c[pair + 1] & 255u) + 0.5f) * 0.00390625f;
    float radius = sqrtf(-2.0f * logf(((float)c[pair] + below) * 2.3283064365386963e-10f));
    float angle = (float)(c[pair + 1] >> 8) * 3.7450702829238413e-07f;
    return radius * ((i & 1) ? sinf(angle) : cosf(angle));
}
__device__ double normal_double(unsigned long long i, unsigned int k0, unsigned int k1, unsigned int c2,
                                unsigned int c3) {
    unsigned int c[4] = {(unsigned int)(i >> 1), (unsigned int)(i >> 33), c2, c3};
    philox_block(c, k0, k1);
    unsigned long long u = ((unsigned long long)c[0] << 21) ^ (c[1] >> 11);
    unsigned long long v = ((unsigned long long)c[2] << 21) ^ (c[3] >> 11);
    double radius = sqrt(-2.0 * log(((double)u + 0.5) * 1.1102230246251565e-16));
    double angle = (double)v * 6.97573699601726e-16;
    return radius * ((i & 1) ? sin(angle) : cos(angle));
}
__device__ unsigned long long word(unsigned long long i, unsigned int k0, unsigned int k1, unsigned int c2,
                                   unsigned int c3) {
    unsigned int c[4] = {(unsigned int)(i >> 1), (unsigned int)(i >> 33), c2, c3};
    philox_block(c, k0, k1);
    return (i & 1) ? ((unsigned long long)c[3] << 32 | c[2]) : ((unsigned long long)c[1] << 32 | c[0]);
}
"""
"""The same in CUDA C."""


class Philox4x32:
    """A stream of independent standard normals, or of words, keyed by 128 bits of `seed`: in NumPy arrays, and in CuPy
    arrays where they are."""

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self._words = [int(word) for word in seed.generate_state(4)]
        self._at = 0

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> None:
        """The next `out.size` normals, float32 or float64, whatever the calls before were cut into."""
        first, self._at = self._at, self._at + out.size
        if isinstance(out, np.ndarray):
            out[...] = _normals(self._words, first, out.size, np.dtype(dtype)).reshape(out.shape)
        else:
            _kernel(np.dtype(dtype).name)(np.uint64(first), *map(np.uint32, self._words), out)

    def words(self, count: int, xp: Any = np) -> Any:
        """The next `count` words, uint64 [count]: two of each block, the lower half first."""
        first, self._at = self._at, self._at + count
        out = xp.empty(count, np.uint64)
        if isinstance(out, np.ndarray):
            out[...] = _pairs(self._words, first, count)
        else:
            _kernel("uint64")(np.uint64(first), *map(np.uint32, self._words), out)
        return out


def block(words: list[int], numbers: Words) -> list[Words]:
    """The four 32-bit words of each block of `numbers` [n]; `words`: the key and the upper half of the counter."""
    k0, k1, high, higher = words
    c = [numbers & _MASK, numbers >> np.uint64(32), np.full_like(numbers, high), np.full_like(numbers, higher)]
    for _ in range(10):
        p, q = _FACTORS[0] * c[0], _FACTORS[1] * c[2]
        c = [
            (q >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            q & _MASK,
            (p >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p & _MASK,
        ]
        k0, k1 = (k0 + _STEPS[0]) & 0xFFFFFFFF, (k1 + _STEPS[1]) & 0xFFFFFFFF
    return c


def _normals(words: list[int], first: int, size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    each = 4 if dtype == np.float32 else 2
    start = first // each
    c = block(words, np.arange(start, -(-(first + size) // each), dtype=np.uint64))
    half, made = dtype.type(0.5), np.empty((len(c[0]), each), dtype)
    for j in range(each // 2):
        if dtype == np.float32:
            u, v = c[2 * j], c[2 * j + 1]
            below, unit = ((v & np.uint64(255)).astype(dtype) + half) * dtype.type(2.0**-8), 2.0**-32
            turn, part = v >> np.uint64(8), 2.0**-24
        else:
            u, turn = ((c[i] << np.uint64(21)) ^ (c[i + 1] >> np.uint64(11)) for i in (0, 2))
            below, unit, part = half, 2.0**-53, 2.0**-53
        radius = np.sqrt(dtype.type(-2) * np.log((u.astype(dtype) + below) * dtype.type(unit)))
        angle = turn.astype(dtype) * dtype.type(2 * math.pi * part)
        np.multiply(radius, np.cos(angle), out=made[:, 2 * j])
        np.multiply(radius, np.sin(angle), out=made[:, 2 * j + 1])
    return made.reshape(-1)[first - each * start :][:size]


def _pairs(words: list[int], first: int, count: int) -> Words:
    start = first // 2
    c = block(words, np.arange(start, -(-(first + count) // 2), dtype=np.uint64))
    made = np.stack([c[1] << np.uint64(32) | c[0], c[3] << np.uint64(32) | c[2]], axis=1)
    return made.reshape(-1)[first - 2 * start :][:count]


_DRAWS = {"float32": "normal_float", "float64": "normal_double", "uint64": "word"}


@lru_cache
def _kernel(dtype: str) -> Any:
    return import_module("cupy").ElementwiseKernel(
        "uint64 first, uint32 k0, uint32 k1, uint32 c2, uint32 c3",
        f"{dtype} z",
        f"z = {_DRAWS[dtype]}(first + i, k0, k1, c2, c3)",
        f"dualsmooth_{_DRAWS[dtype]}",
        preamble=KERNEL,
    )
