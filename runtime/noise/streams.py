"""Noise: independent, replayable Gaussian streams. Randomness is always an explicit seed, never a global generator."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from dualsmooth.runtime.errors import CertificateError, EngineError, InputError
from dualsmooth.runtime.noise.philox import Philox4x32
from dualsmooth.runtime.statistics.votes import Stream

FLOAT, LATTICE = "float", "lattice"
STEPS = 255
"""Lattice noise lives on Z / STEPS, as the pixels of 8-bit images do."""

_STAGES = ("estimator", "classifier")
_PURPOSES = ("selection", "estimation", "prediction")
_CHUNK = 1 << 16
"""Values that are drawn, scaled and added while they are in the cache."""
_FAR = 3.5
"""MKL's normals beyond this are drawn again."""
_BLOCK = 1 << 18
"""Values in a block of shared noise."""


class Normals(Protocol):
    """A stream of independent standard normals, as `numpy.random.Generator` draws them."""

    def standard_normal(self, *, dtype: Any = np.float64, out: Any) -> Any: ...


def _sfc64(seed: np.random.SeedSequence) -> Normals:
    return np.random.Generator(np.random.SFC64(seed))


def _philox(seed: np.random.SeedSequence) -> Normals:
    return np.random.Generator(np.random.Philox(seed))


class _Mkl:
    """Intel MKL's SFMT19937 with inverse-CDF normals, from the package mkl_random.

    MKL makes a normal of 32 bits: none is beyond 6.23, where 4.7e-10 of the normal distribution lies (once in 14,000
    noises of 3 x 224 x 224 values), and steps grow with |z|. So normals beyond `_FAR` are drawn again, with 53 bits;
    below it steps are at most about float32's. A float64 normal is the sum of two, over the root of 2: 64 bits decide.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        try:
            from mkl_random import MKLRandomState
        except ImportError as error:
            raise InputError("noise by mkl needs mkl_random; install it with pip install 'dualsmooth[fast]'") from error
        self._state = MKLRandomState(seed.generate_state(8).tolist(), brng="SFMT19937")
        self._beyond = np.random.Generator(np.random.SFC64(seed))

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


GENERATORS: dict[str, Callable[[np.random.SeedSequence], Normals]] = {
    "SFC64": _sfc64,
    "Philox": _philox,
    "MKL": _Mkl,
    "Philox4x32": Philox4x32,
}


@dataclass(frozen=True)
class Noise:
    """How noise is made. The certificate's guarantee is 1 - alpha for every choice; it records the choice.

    `mode`: `float`: float32 normals are scaled and added in float32; the guarantee takes float rounding for exact
    arithmetic. `lattice`: float64 normals are rounded to Z/255, where 8-bit images lie, so that it need not (Voráček &
    Hein 2023, "Sound Randomized Smoothing in Floating-Point Arithmetics"): images off the lattice are refused.
    `generator`: `SFC64`, `Philox`, `MKL` (package mkl_random), or `Philox4x32` (for GPUs; slow on a CPU).
    `shared`: all images and levels that are certified with one entropy see the same noise; each certificate holds as
    before, but their failures are correlated.
    """

    mode: str = FLOAT
    generator: str = "SFC64"
    shared: bool = False

    def __post_init__(self) -> None:
        if self.mode not in (FLOAT, LATTICE) or self.generator not in GENERATORS:
            raise InputError(f"noise {self} is unknown; expected {NOISE_FORMS}")

    def __str__(self) -> str:
        shown = self.mode if self.generator == "SFC64" else f"{self.mode}:{str(self.generator).lower()}"
        return f"{shown} (shared)" if self.shared else shown


NOISE_FORMS = "float or lattice, and a generator after a colon if not sfc64: float:philox, lattice:mkl"


def parse_noise(text: object) -> Noise:
    """`float`, `lattice`, `float:philox`, `lattice:mkl`, … Raises `InputError`."""
    mode, _, generator = str(text).partition(":")
    names = {name.lower(): name for name in GENERATORS}
    if not isinstance(text, str) or mode not in (FLOAT, LATTICE) or generator not in ("", *names):
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
        GENERATORS[self.noise.generator](np.random.SeedSequence(0))

    def generator(self, stream: Stream) -> Normals:
        """The normals of one stream. Streams of one image are independent, and so are images of one entropy.

        Where noise is shared, only stages and purposes are independent: what a bound rests on is still independent of
        what chose it, and bounds of several levels hold together by the union bound.
        """
        stage, purpose = _STAGES.index(stream.stage), _PURPOSES.index(stream.purpose)
        if self.noise.shared:
            return _Shared(self.key(shared=True), self.noise.generator, stage, purpose)
        key = (stage, stream.level, purpose) if self.binding else (self.index, stage, stream.level, purpose)
        return GENERATORS[self.noise.generator](np.random.SeedSequence(self.key(), spawn_key=key))

    def key(self, *, shared: bool = False) -> int:
        """The entropy of NumPy's `SeedSequence`: 256 bits that follow from entropy, index and binding
        (docs/certificate.md, Seeds); the index has no part in it where noise is shared."""
        if not self.binding:
            return self.entropy
        index = 0 if shared else self.index
        return int.from_bytes(_digest(b"stream", self.entropy.to_bytes(16), index.to_bytes(8), self.binding))

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

    def __init__(self, entropy: int, generator: str, stage: int, purpose: int) -> None:
        self._source = (entropy, generator, stage, purpose)
        self._at = 0

    def standard_normal(self, *, dtype: Any = np.float64, out: npt.NDArray[Any]) -> None:
        flat, done = out.reshape(-1), 0
        while done < flat.size:
            number, start = divmod(self._at, _BLOCK)
            part = _shared_block(*self._source, number, np.dtype(dtype).char)[start : start + flat.size - done]
            flat[done : done + part.size] = part
            done += part.size
            self._at += part.size


@lru_cache(maxsize=24)
def _shared_block(
    entropy: int, generator: str, stage: int, purpose: int, number: int, dtype: str
) -> npt.NDArray[np.float32 | np.float64]:
    block = np.empty(_BLOCK, dtype)
    key = (stage, purpose, number)
    GENERATORS[generator](np.random.SeedSequence(entropy, spawn_key=key)).standard_normal(dtype=block.dtype, out=block)
    block.flags.writeable = False
    return block


def float32_from_above(sigma: float) -> np.float32:
    """The smallest float32 that is not below `sigma`: more noise than stated makes no radius too large, less would."""
    near = np.float32(sigma)
    return near if float(near) >= sigma else np.nextafter(near, np.float32(np.inf))


def add_noise(
    generator: Normals,
    image: npt.NDArray[np.float32],
    sigma: float,
    out: Any,
    mode: str = FLOAT,
    *,
    xp: Any = np,
) -> None:
    """Fill `out` [m,C,H,W] with `image` [C,H,W] (or an image a row, [m,C,H,W]) + sigma * standard normals.

    In mode `float`, sigma is rounded up to float32. In mode `lattice`, round(255 (image + sigma z)) / 255 with float64
    normals z. `out` is contiguous, an array of `xp` (NumPy or CuPy). A stream's values do not depend on how it is cut
    into calls.
    """
    if xp is not np:
        with out.device:
            _add_noise(generator, image, sigma, out, mode, xp)
    else:
        _add_noise(generator, image, sigma, out, mode, xp)


def _add_noise(generator: Normals, image: npt.NDArray[np.float32], sigma: float, out: Any, mode: str, xp: Any) -> None:
    source = getattr(generator, "inner", generator)  # of a watched stream
    if xp is not np and not isinstance(source, Philox4x32):  # others are made on the CPU and carried over
        made = np.empty(out.shape, np.float32)
        add_noise(generator, image, sigma, made, mode)
        out[...] = xp.asarray(made)
        return
    chunk = _CHUNK if xp is np else out.size
    rows = max(1, chunk // max(1, out[0].size)) if len(out) else 1
    images = xp.broadcast_to(xp.asarray(image), out.shape)
    drawn = xp.empty((min(rows, len(out)), *out.shape[1:])) if mode == LATTICE else None
    for start in range(0, len(out), rows):
        copies, clean = out[start : start + rows], images[start : start + rows]
        if drawn is None:
            generator.standard_normal(dtype=np.float32, out=copies)
            xp.multiply(copies, float32_from_above(sigma), out=copies)
            xp.add(copies, clean, out=copies)
        else:
            steps = drawn[: len(copies)]
            generator.standard_normal(dtype=np.float64, out=steps)
            xp.multiply(steps, STEPS * sigma, out=steps)
            xp.rint(steps, out=steps)
            xp.add(steps, xp.rint(clean * np.float64(STEPS)), out=steps)
            xp.divide(steps, STEPS, out=copies, casting="same_kind")


def require_lattice(image: npt.NDArray[np.float32]) -> None:
    """Raises `InputError` unless each value of `image` is the float32 nearest to a k / 255, k an integer."""
    steps = np.rint(image * np.float32(STEPS))
    off = image != steps.astype(np.float32) / np.float32(STEPS)
    if off.any():
        raise InputError(
            f"lattice noise needs an image on the lattice k/255, but {int(off.sum())} values are off it, e.g. "
            f"{image[off].flat[0]:.8g}; pass the 8-bit image (uint8), or use float noise"
        )
