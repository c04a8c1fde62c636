"""What a certificate is about: the deployed files and how they were run, the image, and noise that is bound to both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.noise.streams import Seed


@dataclass(frozen=True)
class Artefact:
    """What was sampled: the deployed files, and how they were run."""

    manifest_sha256: str
    files: Mapping[str, str]
    precision: str
    provider: str
    engine: str
    image_sha256: str

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "files": dict(self.files)}

    @classmethod
    def from_dict(cls, data: Any) -> Artefact:
        """Inverse of `to_dict`. Raises `CertificateError`."""
        names = set(cls.__dataclass_fields__)
        if isinstance(data, Mapping) and set(data) == names and isinstance(data["files"], Mapping):
            texts = [*(data[name] for name in names - {"files"}), *data["files"].values()]
            if all(isinstance(text, str) for text in texts):
                return cls(**data)
        raise CertificateError(f"artefact must hold {', '.join(sorted(names))}, all of them texts")


def image_sha256(pixels: npt.NDArray[np.float32]) -> str:
    """SHA-256 of an image [C,H,W] as little-endian float32."""
    return hashlib.sha256(pixels.astype("<f4").tobytes()).hexdigest()


def bound(seed: Seed, image_sha256: str, manifest_sha256: str, words: str) -> Seed:
    """The seed for these votes alone. Where noise is shared by the images of a run, it is not bound to one of them."""
    return seed.bound("" if seed.noise.shared else image_sha256, manifest_sha256, words)
