"""Pictures in class folders, decoded when they are asked for: data sets that do not fit into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Stands for uint8 images [N,3,size,size]: an integer index decodes one, a slice or an array selects without
    decoding, `np.asarray` decodes all.

    Each picture is converted to RGB, its shorter side resized to `resize` (bilinear with antialiasing), and the middle
    cut out. Safe to use from several threads.
    """

    paths: npt.NDArray[np.bytes_]
    size: int
    resize: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.paths[index]
        if isinstance(chosen, bytes):
            return self.decode(os.fsdecode(chosen))
        return ImageFiles(chosen, self.size, self.resize)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return (self.decode(os.fsdecode(path)) for path in self.paths)

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        images = np.empty(self.shape, np.uint8)
        for number, image in enumerate(self):
            images[number] = image
        return images if dtype is None else images.astype(dtype)

    def decode(self, path: str, crop: np.random.Generator | None = None, scale: float = 1.0) -> npt.NDArray[np.uint8]:
        """The picture at `path` as uint8 [3,size,size]; with `crop`, a random part of it instead of the middle: from
        `scale` to all of its area, with sides 3:4 to 4:3 (Szegedy et al. 2015). Raises `InputError`."""
        try:
            import PIL.Image
        except ImportError as error:
            raise InputError(f"reading {path} needs Pillow; pip install 'dualsmooth[report]'") from error
        try:
            with PIL.Image.open(path) as opened:
                picture = opened.convert("RGB")
                bilinear = PIL.Image.Resampling.BILINEAR
                if crop is not None:
                    box = random_box(picture.size, scale, crop)
                    picture = picture.resize((self.size, self.size), bilinear, box=box)
                else:
                    picture = picture.resize(_shorter_side(picture.size, self.resize), bilinear)
                    left, top = (round((side - self.size) / 2) for side in picture.size)
                    picture = picture.crop((left, top, left + self.size, top + self.size))
                return np.ascontiguousarray(np.asarray(picture, np.uint8).transpose(2, 0, 1))
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise InputError(f"cannot read {path} ({str(error)[:80]}); expected a picture, e.g. JPEG or PNG") from error


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


def read_folders(
    root: Path, split: str, size: int, resize: int, *, share: float = 0.2, seed: int = 0
) -> tuple[ImageFiles, npt.NDArray[np.int64], tuple[str, ...]]:
    """Images, labels and class names of the tree `root`: one folder for each class, or such trees in `train` and `val`
    (or `test`).

    Without a tree for the test split, a `share` of the pictures is held out for it, by a hash of `seed` and their path:
    the same ones in every run, whatever else is added. Classes are the sorted names of the folders, those of `train`
    where there is one. Raises `InputError`.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected one with a folder of pictures for each class")
    train = root / "train"
    test = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    if train.is_dir() and split == "train":
        tree = train
    elif test is not None:
        tree = test
        if split == "train":
            raise InputError(f"{root} has {test.name} but no train folder; expected both, or class folders only")
    else:
        tree = train if train.is_dir() else root
    classes = _subfolders(train if train.is_dir() else tree)
    unknown = sorted(set(_subfolders(tree)) - set(classes))
    if unknown:
        raise InputError(f"{tree} has class {unknown[0]!r}, which {train} has not; expected the same class folders")
    found = [(path, label) for label, name in enumerate(classes) for path in _pictures(tree / name)]
    if test is None:
        found = [(path, label) for path, label in found if _held_out(path, tree, share, seed) == (split == "test")]
    if len(classes) < 2 or not found:
        raise InputError(
            f"{tree} holds {len(found)} pictures of {len(classes)} classes for {split}; expected one folder a class"
        )
    labels = np.array([label for _, label in found], np.int64)
    return ImageFiles(np.array([os.fsencode(path) for path, _ in found]), size, resize), labels, classes


def _shorter_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    width, height = size
    return (wanted, int(wanted * height / width)) if width <= height else (int(wanted * width / height), wanted)


def _subfolders(root: Path) -> tuple[str, ...]:
    with os.scandir(root) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))


def _pictures(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )


def _held_out(path: str, root: Path, share: float, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}:{Path(path).relative_to(root).as_posix()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
