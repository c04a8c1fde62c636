"""Noise: independent, replayable Gaussian streams. Randomness is always an explicit seed, never a global generator."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.votes import Stream

GENERATOR = "SFC64"
_STAGES = ("estimator", "classifier")
_PURPOSES = ("selection", "estimation", "prediction")


@dataclass(frozen=True)
class Seed:
    """Where one certificate's noise comes from: 128 bits of entropy and the index of the image.

    `fixed` is True where a person chose the entropy: such a certificate only convinces those who trust that choice.
    """

    entropy: int
    index: int = 0
    fixed: bool = False

    @classmethod
    def make(cls, seed: int | None) -> Seed:
        """From the operating system's entropy, or (opt-in) from a fixed seed."""
        if seed is None:
            return cls(secrets.randbits(128))
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 128:
            raise InputError(f"seed is {seed!r}; expected an integer from 0 to 2^128 - 1, or none")
        return cls(int(seed), fixed=True)

    def at(self, index: int) -> Seed:
        """The seed of another image of the same entropy."""
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < 1 << 63:
            raise InputError(f"index is {index!r}; expected an integer from 0 to 2^63 - 1")
        return Seed(self.entropy, int(index), self.fixed)

    def generator(self, stream: Stream) -> np.random.Generator:
        """The generator of one stream. Streams of one image, and images of one entropy, are independent."""
        key = (self.index, _STAGES.index(stream.stage), stream.level, _PURPOSES.index(stream.purpose))
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(self.entropy, spawn_key=key)))

    def to_dict(self) -> dict[str, Any]:
        return {"generator": GENERATOR, "entropy": f"{self.entropy:032x}", "index": self.index, "fixed": self.fixed}

    @classmethod
    def from_dict(cls, data: Any) -> Seed:
        try:
            if data["generator"] != GENERATOR:
                raise CertificateError(f"generator {str(data['generator'])[:40]!r} is unknown; expected {GENERATOR}")
            if type(data["index"]) is not int or type(data["fixed"]) is not bool:
                raise TypeError("index or fixed")
            seed = cls(int(data["entropy"], 16), data["index"], data["fixed"])
        except (KeyError, TypeError, ValueError) as error:
            raise CertificateError("seed must hold generator, entropy (hex), index and fixed") from error
        if not (0 <= seed.entropy < 1 << 128 and 0 <= seed.index < 1 << 63):
            raise CertificateError("seed is out of range")
        return seed


def add_noise(
    generator: np.random.Generator, image: npt.NDArray[np.float32], sigma: float, out: npt.NDArray[np.float32]
) -> None:
    """Fill `out` [m,C,H,W] with `image` [C,H,W] + sigma * standard normals, in place, in float32.

    A stream's values do not depend on how it is cut into calls.
    """
    generator.standard_normal(dtype=np.float32, out=out)
    np.multiply(out, np.float32(sigma), out=out)
    np.add(out, image, out=out)
