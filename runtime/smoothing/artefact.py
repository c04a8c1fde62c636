"""What a certificate is about: the deployed files and how they were run, the image, and noise that is bound to both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.preprocessing import LARGEST_SIDE, Preprocessing
from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.noise.streams import Seed


@dataclass(frozen=True)
class Artefact:
    """What was sampled: the deployed files, how they were run, and the network's input. `preprocessing`: how the bundle
    makes such inputs from pictures; the hash and every radius are about the input."""

    manifest_sha256: str
    files: Mapping[str, str]
    precision: str
    provider: str
    engine: str
    image_sha256: str
    preprocessing: Preprocessing | None = None

    @property
    def about(self) -> str:
        """What a radius is about, in words, where that is not the picture itself; else empty."""
        how = self.preprocessing
        return "" if how is None else f"the radius is about the network's input, made from pictures so: {how.words}"

    def to_dict(self) -> dict[str, Any]:
        stated, how = {**vars(self), "files": dict(self.files)}, stated_preprocessing(self.preprocessing)
        return {name: value for name, value in stated.items() if name != "preprocessing"} | how

    @classmethod
    def from_dict(cls, data: Any) -> Artefact:
        """Inverse of `to_dict`. Raises `CertificateError`."""
        names = set(cls.__dataclass_fields__) - {"preprocessing"}
        if isinstance(data, Mapping) and set(data) - {"preprocessing"} == names and isinstance(data["files"], Mapping):
            texts = [*(data[name] for name in names - {"files"}), *data["files"].values()]
            if all(isinstance(text, str) for text in texts):
                how = _preprocessing(data["preprocessing"]) if "preprocessing" in data else None
                return cls(**{**data, "preprocessing": how})
        raise CertificateError(f"artefact must hold {', '.join(sorted(names))}, all of them texts")


def stated_preprocessing(how: Preprocessing | None) -> dict[str, Any]:
    """As a certificate states it, with the input's shape; nothing where there is none."""
    return {} if how is None else {"preprocessing": {"shape": list(how.shape), **how.to_dict()}}


def _preprocessing(stated: Any) -> Preprocessing:
    def need(good: bool, what: str) -> None:
        if not good:
            raise CertificateError(f"artefact: {what}")

    shape: Any = stated.get("shape") if isinstance(stated, Mapping) else None
    sizes = isinstance(shape, list) and len(shape) == 3
    sizes = sizes and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in shape)
    need(sizes, "preprocessing.shape must be [C, H, W]")
    return Preprocessing.of(stated, (shape[0], shape[1], shape[2]), need)


def image_sha256(pixels: npt.NDArray[np.float32]) -> str:
    """SHA-256 of an image [C,H,W] as little-endian float32."""
    return hashlib.sha256(pixels.astype("<f4").tobytes()).hexdigest()


def bound(seed: Seed, image_sha256: str, manifest_sha256: str, words: str) -> Seed:
    """The seed for these votes alone. Where noise is shared by the images of a run, it is not bound to one of them."""
    return seed.bound("" if seed.noise.shared else image_sha256, manifest_sha256, words)
