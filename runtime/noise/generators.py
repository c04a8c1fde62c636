"""Generators of random numbers: one row of a table each, with its known answers. A new one is one more row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.philox import Philox4x32

_FAR = 3.5
"""MKL's normals beyond this are drawn again."""
_REST = int.from_bytes(b"rest")
"""Last word of the key of a stream's `rest`; no other stream's key ends with it."""


class Normals(Protocol):
    """A stream of independent standard normals, as `numpy.random.Generator` draws them."""

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> Any: ...


class Words(Protocol):
    """A stream of independent, uniform 64-bit words."""

    def words(self, count: int, xp: Any = np) -> Any:
        """The next `count` words, uint64 [count], an array of `xp` where the generator draws on devices."""


@dataclass(frozen=True)
class Generator:
    """A way to draw. `normals`, `words`: the streams of a seed. `known`: the first three values of seed 2026 with key
    (1, 2, 3, 4) and the 4096th normal (`f4`, `f8`), or the sum of 4096 words (`u8`): certificates that name a generator
    can only be replayed while it draws these. `on_device`: fills arrays where they are. `needs`: a module, and what
    brings it."""

    name: str
    normals: Callable[[np.random.SeedSequence], Normals]
    words: Callable[[np.random.SeedSequence], Words]
    known: Mapping[str, tuple[float, ...]]
    on_device: bool = False
    needs: tuple[str, str] | None = None

    def require(self) -> None:
        """Raises `InputError` where this machine cannot draw by it."""
        if self.needs and find_spec(self.needs[0]) is None:
            module, fix = self.needs
            raise InputError(f"noise by {self.name.lower()} needs {module}; install it with {fix}")


class Source:
    """One stream: standard normals, or uniform words and, as `rest`, what settles those that words leave open. No value
    depends on how a stream is cut into calls."""

    def __init__(self, generator: Generator, seed: np.random.SeedSequence) -> None:
        generator.require()
        self._generator, self._seed = generator, seed

    @property
    def on_device(self) -> bool:
        return self._generator.on_device

    @cached_property
    def _normals(self) -> Normals:
        return self._generator.normals(self._seed)

    @cached_property
    def _words(self) -> Words:
        return self._generator.words(self._seed)

    @cached_property
    def rest(self) -> Source:
        """Another stream, independent of this one."""
        return Source(self._generator, rest_of(self._seed))

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> None:
        self._normals.standard_normal(dtype=dtype, out=out)

    def words(self, count: int, xp: Any = np) -> Any:
        return self._words.words(count, xp)


def rest_of(seed: np.random.SeedSequence) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, _REST))


class Raw:
    """What a NumPy bit generator draws, as it is."""

    def __init__(self, bits: Any) -> None:
        self._bits = bits

    def words(self, count: int, xp: Any = np) -> npt.NDArray[np.uint64]:
        drawn: npt.NDArray[np.uint64] = self._bits.random_raw(count)
        return drawn


class _Mkl:
    """Intel MKL's SFMT19937 with inverse-CDF normals, from the package mkl_random.

    MKL makes a normal of 32 bits: none is beyond 6.23, where 4.7e-10 of the normal distribution lies (once in 14,000
    noises of 3 x 224 x 224 values), and steps grow with |z|. So normals beyond `_FAR` are drawn again, with 53 bits;
    below it steps are at most about float32's. A float64 normal is the sum of two, over the root of 2: 64 bits decide.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        from mkl_random import MKLRandomState

        self._state = MKLRandomState(seed.generate_state(8).tolist(), brng="SFMT19937")
        self._beyond = np.random.Generator(np.random.SFC64(seed))

    def words(self, count: int, xp: Any = np) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._state.bytes(8 * count), "<u8")

    def standard_normal(self, *, dtype: Any = np.float64, out: npt.NDArray[Any]) -> None:
        flat = out.reshape(-1)
        if out.dtype == np.float32:
            np.copyto(flat, self._state.standard_normal(flat.size), casting="same_kind")
            self._draw_far_ones(flat)
        else:
            pairs = self._state.standard_normal(2 * flat.size)
            self._draw_far_ones(pairs)
            np.add(pairs[::2], pairs[1::2], out=flat)
            np.multiply(flat, math.sqrt(0.5), out=flat)

    def _draw_far_ones(self, normals: npt.NDArray[Any]) -> None:
        """Those beyond `_FAR`, from the normal distribution beyond it, by its inverse; signs stay."""
        far = np.flatnonzero(np.abs(normals) > _FAR)
        tails = ndtr(-_FAR) * (1 - self._beyond.random(far.size))
        normals[far] = np.copysign(ndtri(tails), normals[far])


_ALL = (
    Generator(
        "SFC64",
        lambda seed: np.random.Generator(np.random.SFC64(seed)),
        lambda seed: Raw(np.random.SFC64(seed)),
        {
            "f4": (-0.3383953273296356, 1.4934649467468262, -0.9167395830154419, -0.4564055800437927),
            "f8": (-0.08528922886396512, -0.7837655337956596, -0.5188224861376206, -0.9544271128126626),
            "u8": (0xA19372DE3205DB9C, 0x940593E1BB597D56, 0xB0AEE0AEE2C89133, 0x773CE736CE821D9E),
        },
    ),
    Generator(
        "Philox",
        lambda seed: np.random.Generator(np.random.Philox(seed)),
        lambda seed: Raw(np.random.Philox(seed)),
        {
            "f4": (-0.16072998940944672, 2.204301357269287, 0.21489477157592773, -0.1370670348405838),
            "f8": (-1.0055191891886377, 0.9593141530046867, 1.0980631287922886, -1.377805579863831),
            "u8": (0xAF000AFC132E95CC, 0x5C32E1CA3288BE3F, 0x16960D0ACE76A083, 0x1A64B16AF90BAC5A),
        },
    ),
    Generator(
        "MKL",
        _Mkl,
        _Mkl,
        {
            "f4": (-0.663074459119031, -0.8200442272559125, 0.43557478488459583, -0.5531644691775243),
            "f8": (-1.0487232804402071, 0.846224313053319, -1.3675503240238667, -0.6726374938118225),
            "u8": (0xB4C2ABD6C0EEA523, 0x46D736392B1E0E4A, 0xC887A2DD9635B1B9, 0xE8AD32A455D015AD),
        },
        needs=("mkl_random", "pip install 'dualsmooth[fast]'"),
    ),
    Generator(
        "Philox4x32",
        Philox4x32,
        Philox4x32,
        {
            "f4": (-0.8368725180625916, 0.06062265485525131, 1.592333197593689, -0.8565635681152344),
            "f8": (-0.1647274349852061, 0.8227367055859043, -0.058143353173268984, -0.7112175340359809),
            "u8": (0x7D0DBFDAB40974B9, 0xFFC6CE24480D1B0A, 0x4F43849716C566BD, 0x4B14E3098BACD853),
        },
        on_device=True,
    ),
)
GENERATORS: dict[str, Generator] = {generator.name: generator for generator in _ALL}
"""The same normals in NumPy 1.26 and 2.4, and the same words in every NumPy."""
