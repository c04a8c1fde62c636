"""Pictures that are decoded when they are asked for: data sets that do not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.datasets.decode import decode
from dualsmooth.runtime.datasets.preprocess import middle, preprocessed, resized, shorter_side

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Stands for uint8 images [N,channels,size,size]: an integer index decodes one, a slice or an array selects without
    decoding, `np.asarray` decodes all.

    Each picture is decoded (see `decode`), its shorter side resized to `resize` (bilinear with antialiasing), and the
    middle cut out; or all is done as a bundle's `preprocessing` says, and sizes are its own. Safe to use from several
    threads.
    """

    paths: npt.NDArray[np.bytes_]
    size: int
    resize: int
    channels: int = 3
    preprocessing: Preprocessing | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        if self.preprocessing is not None:
            return len(self.paths), *self.preprocessing.shape
        return len(self.paths), self.channels, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.paths[index]
        if isinstance(chosen, bytes):
            return self.decode(os.fsdecode(chosen))
        return replace(self, paths=chosen)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return (self.decode(os.fsdecode(path)) for path in self.paths)

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        images = np.empty(self.shape, np.uint8)
        for number, image in enumerate(self):
            images[number] = image
        return images if dtype is None else images.astype(dtype)

    def decode(self, path: str, crop: np.random.Generator | None = None, scale: float = 1.0) -> npt.NDArray[np.uint8]:
        """The picture at `path` as uint8 [channels,size,size]; with `crop`, a random part of it instead of the middle:
        from `scale` to all of its area, with sides 3:4 to 4:3 (Szegedy et al. 2015). Raises `InputError`."""
        picture = decode(path, self.shape[1])
        if self.preprocessing is not None:
            return preprocessed(picture, self.preprocessing)
        if crop is not None:
            box = random_box(picture.size, scale, crop)
            picture = resized(picture, (self.size, self.size), "bilinear", box=box)
        else:
            picture = resized(picture, shorter_side(picture.size, self.resize), "bilinear")
            picture = middle(picture, self.size, self.size)
        pixels = np.asarray(picture, np.uint8).reshape(self.size, self.size, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def random_box(size: tuple[int, int], scale: float, generator: np.random.Generator) -> Box:
    """A random part (left, top, right, bottom) of a picture: a share of its area from `scale` to 1, sides 3:4 to 4:3;
    the largest such part in the middle where ten draws do not fit."""
    width, height = size
    for _ in range(10):
        area = width * height * generator.uniform(scale, 1.0)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(generator.integers(width - wide + 1)), int(generator.integers(height - high + 1))
            return left, top, left + wide, top + high
    cut = max(0.0, width - height * 4 / 3) / 2, max(0.0, height - width * 4 / 3) / 2
    return cut[0], cut[1], width - cut[0], height - cut[1]
