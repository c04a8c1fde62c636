"""How far a graph of another precision votes like its fp32 original: arg-max agreement under noise, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from dualsmooth.export.onnx.precision import Samples
from dualsmooth.export.onnx.sessions import opened, run
from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.errors import BundleError, InputError

FLOORS = {"fp16": 0.99, "bf16": 0.97, "int8": 0.95}
"""The least agreement at any level with which a file is exported, unless it is forced."""

_CHUNK = 32


@dataclass(frozen=True)
class Pictures:
    """Images float32 [M,C,H,W] in [0, 1] that a model will see, and where they are from. Never test images."""

    name: str
    calibration: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.float32]

    @staticmethod
    def choose(
        name: str, images: npt.NDArray[Any] | ImageFiles, *, calibrate: int = 128, measure: int = 512, seed: int = 0
    ) -> Pictures:
        """Pick images for calibration, and others to measure agreement on, from uint8 or float32 `images` [M,C,H,W]."""
        dtype = np.dtype(np.uint8) if isinstance(images, ImageFiles) else images.dtype
        if len(images.shape) != 4 or len(images) < 2 or dtype not in (np.uint8, np.float32):
            raise InputError(
                f"{name} holds {dtype} {list(images.shape)}; expected 2 or more, uint8 or float32 [M,C,H,W]"
            )
        order = np.random.default_rng(seed).permutation(len(images))
        first = min(calibrate, len(images) // 2)
        scale = np.float32(255 if dtype == np.uint8 else 1)
        parts = (images[order[:first]], images[order[first : first + measure]])
        small, rest = (np.ascontiguousarray(np.asarray(part).astype(np.float32) / scale) for part in parts)
        if not (min(small.min(), rest.min()) >= 0 and max(small.max(), rest.max()) <= 1):
            raise InputError(f"{name} holds values outside of [0, 1]; pass unnormalised images")
        return Pictures(name, small, rest)

    @staticmethod
    def random(shape: tuple[int, int, int]) -> Pictures:
        """Uniform random images, where there are no real ones: a rough measure only."""
        generator = np.random.default_rng(0)
        return Pictures("uniform random images", *(generator.random((n, *shape), np.float32) for n in (1, 128)))

    def noisy(self, levels: Sequence[float], *, held_out: bool = False, seed: int = 0) -> Samples:
        """The images at every level, each under noise of its own, in batches that mix no levels."""
        images = self.held_out if held_out else self.calibration
        generator = np.random.Generator(np.random.SFC64([seed, int(held_out)]))
        return [
            (part + np.float32(level) * generator.standard_normal(part.shape, np.float32), float(level))
            for start in range(0, len(images), _CHUNK)
            for part in [images[start : start + _CHUNK]]
            for level in levels
        ]


def agreement(
    original: onnx.ModelProto, other: onnx.ModelProto, samples: Samples, name: str
) -> dict[float, float]:  # fmt: skip
    """The share of noisy images on which both graphs vote for the same class, for each level of `samples`."""
    same: dict[float, list[float]] = {}
    with opened(original, name) as first, opened(other, name) as second:
        for batch, level in samples:
            votes = [run(session, batch, level, name).argmax(1) for session in (first, second)]
            same.setdefault(level, []).extend((votes[0] == votes[1]).tolist())
    return {level: float(np.mean(values)) for level, values in same.items()}


def check_floor(found: Mapping[str, Mapping[float, float]], floor: float, *, force: bool) -> None:
    """Raises `BundleError` where any file agrees with fp32 on less than `floor` at any level, unless forced."""
    shares = [(share, name, level) for name, levels in found.items() for level, share in levels.items()]
    worst, name, level = min(shares, default=(1.0, "", 0.0))
    if worst < floor and not force:
        raise BundleError(
            f"{name} votes like its fp32 original on {worst:.1%} of the noisy images at sigma {level:g}, less than the "
            f"floor of {floor:.1%}; calibrate on images like those it will see, lower --floor, or pass --force"
        )
