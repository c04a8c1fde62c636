"""Pictures that are decoded when they are asked for: data sets that do not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.decode import decode

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Stands for uint8 images [N,channels,size,size]: an integer index decodes one, a slice or an array selects without
    decoding, `np.asarray` decodes all.

    Each picture is decoded (see `decode`), its shorter side resized to `resize` (bilinear with antialiasing), and the
    middle cut out. Safe to use from several threads.
    """

    paths: npt.NDArray[np.bytes_]
    size: int
    resize: int
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
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
        picture = decode(path, self.channels)
        from PIL.Image import Resampling

        if crop is not None:
            box = random_box(picture.size, scale, crop)
            picture = picture.resize((self.size, self.size), Resampling.BILINEAR, box=box)
        else:
            picture = picture.resize(_shorter_side(picture.size, self.resize), Resampling.BILINEAR)
            left, top = (round((side - self.size) / 2) for side in picture.size)
            picture = picture.crop((left, top, left + self.size, top + self.size))
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


def _shorter_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    width, height = size
    return (wanted, int(wanted * height / width)) if width <= height else (int(wanted * width / height), wanted)
