"""Noise: independent, replayable Gaussian streams. Randomness is always an explicit seed, never a global generator."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, EngineError, InputError
from dualsmooth.runtime.noise.add import FLOAT, MODES, TABLE, on_lattice
from dualsmooth.runtime.noise.generators import GENERATORS, Source
from dualsmooth.runtime.noise.levels import LARGEST
from dualsmooth.runtime.statistics.votes import Stream

AUTO = "auto"
"""Asks for the mode that suits an image; no certificate states it."""

_STAGES = ("estimator", "classifier")
_PURPOSES = ("selection", "estimation", "prediction")
_BLOCK = 1 << 18
"""Values in a block of shared noise."""


@dataclass(frozen=True)
class Noise:
    """How noise is made. The certificate's guarantee is 1 - alpha for every choice; it records the choice.

    `mode`: `float`: float32 normals are scaled and added in float32; the guarantee takes float rounding for exact
    arithmetic. `lattice`: float64 normals are rounded to Z/255, where 8-bit images lie, so that it need not (Voráček &
    Hein 2023, "Sound Randomized Smoothing in Floating-Point Arithmetics"): images off the lattice are refused.
    `table`: the same law, drawn from a table instead of normals: exact to 2^-53, and faster than `float`. `auto`:
    `table` for images on the lattice, `float` for others.
    `generator`: `SFC64`, `Philox`, `MKL` (package mkl_random), or `Philox4x32` (for GPUs; slow on a CPU).
    `shared`: all images and levels that are certified with one entropy see the same noise; each certificate holds as
    before, but their failures are correlated.
    """

    mode: str = FLOAT
    generator: str = "SFC64"
    shared: bool = False

    def __post_init__(self) -> None:
        if self.mode not in (AUTO, *MODES) or self.generator not in GENERATORS:
            raise InputError(f"noise {self} is unknown; expected {NOISE_FORMS}")

    def __str__(self) -> str:
        shown = self.mode if self.generator == "SFC64" else f"{self.mode}:{str(self.generator).lower()}"
        return f"{shown} (shared)" if self.shared else shown

    @property
    def on_lattice(self) -> bool:
        """Whether images off the lattice are refused."""
        return self.mode != AUTO and MODES[self.mode].lattice

    def suited(self, image: npt.NDArray[Any], sigmas: Iterable[float]) -> Noise:
        """The same, with the mode that `auto` stands for: for `image`, or images (uint8, or float32 in [0, 1]), at
        these levels. Raises `InputError` for levels that no table has."""
        largest = max(sigmas)
        if self.mode == TABLE and largest > LARGEST:
            raise InputError(f"table noise has levels up to {LARGEST:g}, not {largest:g}; use lattice or float noise")
        if self.mode != AUTO:
            return self
        lattice = image.dtype == np.uint8 or on_lattice(image)
        return replace(self, mode=TABLE if lattice and largest <= LARGEST else FLOAT)


DEFAULT_NOISE = Noise(AUTO)
"""What is asked for unless said otherwise."""
NOISE_FORMS = "auto, float, lattice or table, and a generator after a colon if not sfc64: float:philox, table:mkl"


def parse_noise(text: object) -> Noise:
    """`auto`, `float`, `lattice`, `table`, `float:philox`, `table:mkl`, … Raises `InputError`.

    >>> parse_noise("table:philox")
    Noise(mode='table', generator='Philox', shared=False)
    """
    mode, _, generator = str(text).partition(":")
    names = {name.lower(): name for name in GENERATORS}
    if not isinstance(text, str) or mode not in (AUTO, *MODES) or generator not in ("", *names):
        raise InputError(f"noise {str(text)[:40]!r} is unknown; expected {NOISE_FORMS}")
    return Noise(mode, names[generator or "sfc64"])


@dataclass(frozen=True)
class Seed:
    """Where one certificate's noise comes from: 128 bits of entropy, the index of the image, and how noise is made.

    `fixed` is True where a person chose the entropy: such a certificate only convinces those who trust that choice.
    `binding`: what the noise is for (`bound`); part of every stream's key. Empty in certificates of version 1.
    """

    entropy: int
    index: int = 0
    fixed: bool = False
    noise: Noise = field(default=Noise())
    binding: bytes = b""

    @classmethod
    def make(cls, seed: int | None, noise: Noise | None = None) -> Seed:
        """From the operating system's entropy, or (opt-in) from a fixed seed. Raises `InputError`, `EngineError`."""
        if noise is not None and not isinstance(noise, Noise):
            raise InputError(f"noise is {str(noise)[:40]!r}; expected a Noise, e.g. Noise('lattice')")
        if seed is None:
            return cls(_fresh_entropy(), noise=noise or Noise())
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 128:
            raise InputError(f"seed is {seed!r}; expected an integer from 0 to 2^128 - 1, or none")
        return cls(int(seed), fixed=True, noise=noise or Noise())

    def at(self, index: int) -> Seed:
        """The seed of image `index` of a run. A fixed entropy stays as it is; from an unknown one, each image's own is
        derived, so that a certificate that is published tells nothing of the noise of the images to come. The same run
        gives the same image the same seed, however often it is asked."""
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < 1 << 63:
            raise InputError(f"index is {index!r}; expected an integer from 0 to 2^63 - 1")
        if self.fixed or self.noise.shared:
            return replace(self, index=int(index))
        own = _digest(b"image", self.entropy.to_bytes(16), int(index).to_bytes(8))
        return replace(self, entropy=int.from_bytes(own[:16]), index=int(index))

    def bound(self, *parts: str) -> Seed:
        """The same seed, for this purpose alone: no one can draw these votes and then choose another image, network,
        rule, budget or alpha for them. `parts`: hash of the image (left out where noise is shared), hash of the
        manifest, and terms, as text."""
        return replace(self, binding=_digest(b"binding", *(part.encode() for part in parts)))

    def answering(self, nonce: str) -> Seed:
        """The seed of one request to a server that holds this one: the same for the same nonce, so that a request which
        is sent again draws the same votes, and known to neither side alone."""
        own = _digest(b"request", self.entropy.to_bytes(16), nonce.encode())
        return replace(self, entropy=int.from_bytes(own[:16]))

    def require_generator(self) -> None:
        """Raises `InputError` where this machine cannot make such noise."""
        GENERATORS[self.noise.generator].require()

    def generator(self, stream: Stream) -> Source | _Shared:
        """What the noise of one stream is drawn from. Streams of one image are independent, and so are images of one
        entropy.

        Where noise is shared, only stages and purposes are independent: what a bound rests on is still independent of
        what chose it, and bounds of several levels hold together by the union bound.
        """
        stage, purpose = _STAGES.index(stream.stage), _PURPOSES.index(stream.purpose)
        if self.noise.shared:
            return _Shared(self.key(shared=True), self.noise.generator, stage, purpose)
        key = (stage, stream.level, purpose) if self.binding else (self.index, stage, stream.level, purpose)
        return Source(GENERATORS[self.noise.generator], np.random.SeedSequence(self.key(), spawn_key=key))

    def key(self, *, shared: bool = False) -> int:
        """The entropy of NumPy's `SeedSequence`: 256 bits that follow from entropy, index and binding
        (docs/certificate.md, Seeds); the index has no part in it where noise is shared."""
        if not self.binding:
            return self.entropy
        index = 0 if shared else self.index
        return int.from_bytes(_digest(b"stream", self.entropy.to_bytes(16), index.to_bytes(8), self.binding))

    def suited(self, image: npt.NDArray[Any], sigmas: Iterable[float]) -> Seed:
        """The same seed, with the mode of noise that suits an image; see `Noise.suited`."""
        return replace(self, noise=self.noise.suited(image, sigmas))

    def to_dict(self) -> dict[str, Any]:
        return {
            "generator": self.noise.generator,
            "entropy": f"{self.entropy:032x}",
            "index": self.index,
            "fixed": self.fixed,
            "noise": self.noise.mode,
            "shared": self.noise.shared,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Seed:
        """Inverse of `to_dict`; raises `CertificateError`. Certificates without `noise` and `shared` have neither."""
        try:
            shared = data.get("shared", False)
            if type(data["index"]) is not int or type(data["fixed"]) is not bool or type(shared) is not bool:
                raise TypeError("index, fixed or shared")
            noise = Noise(data.get("noise", FLOAT), data["generator"], shared)
            if noise.mode == AUTO:
                raise TypeError("noise")
            seed = cls(int(data["entropy"], 16), data["index"], data["fixed"], noise)
        except InputError as error:
            raise CertificateError(f"seed: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CertificateError("seed must hold generator, entropy (hex), index and fixed") from error
        if not (0 <= seed.entropy < 1 << 128 and 0 <= seed.index < 1 << 63):
            raise CertificateError("seed is out of range")
        return seed


def _digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts, each with its length before it, so that no two lists of parts give the same text."""
    made = hashlib.sha256(b"dualsmooth 2")
    for part in parts:
        made.update(len(part).to_bytes(8) + part)
    return made.digest()


_last_entropy = -1


def _fresh_entropy() -> int:
    """128 bits from the operating system. Raises `EngineError` where they are the last ones again (chance 2^-128)."""
    global _last_entropy
    entropy = secrets.randbits(128)
    if entropy == _last_entropy:
        raise EngineError("entropy source: the operating system's random numbers repeat; no certificate is issued")
    _last_entropy = entropy
    return entropy


class _Shared:
    """A stream of shared noise, in blocks that are made when they are first asked for and kept for the next image.

    A block's key has three words where a stream of a single image has four or more, so the two never coincide.
    """

    on_device = False

    def __init__(self, entropy: int, generator: str, stage: int, purpose: int, *, rest: bool = False) -> None:
        self._source = (entropy, generator, stage, purpose)
        self._is_rest, self._at = rest, 0

    @cached_property
    def rest(self) -> _Shared:
        return _Shared(*self._source, rest=True)

    def standard_normal(self, *, dtype: Any = np.float64, out: npt.NDArray[Any]) -> None:
        self._copy(out.reshape(-1), np.dtype(dtype).char)

    def words(self, count: int, xp: Any = np) -> npt.NDArray[np.uint64]:
        out = np.empty(count, np.uint64)
        self._copy(out, "Q")
        return out

    def _copy(self, flat: npt.NDArray[Any], dtype: str) -> None:
        done = 0
        while done < flat.size:
            number, start = divmod(self._at, _BLOCK)
            block = _shared_block(*self._source, number, self._is_rest, dtype)
            part = block[start : start + flat.size - done]
            flat[done : done + part.size] = part
            done += part.size
            self._at += part.size


@lru_cache(maxsize=24)
def _shared_block(
    entropy: int, generator: str, stage: int, purpose: int, number: int, rest: bool, dtype: str
) -> npt.NDArray[Any]:
    source = Source(GENERATORS[generator], np.random.SeedSequence(entropy, spawn_key=(stage, purpose, number)))
    source = source.rest if rest else source
    block: npt.NDArray[Any]
    if dtype == "Q":
        block = source.words(_BLOCK)
    else:
        block = np.empty(_BLOCK, dtype)
        source.standard_normal(dtype=block.dtype, out=block)
    block.flags.writeable = False
    return block
