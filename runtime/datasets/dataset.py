"""Labelled image sets for training, `evaluate` and `demo`: uint8 images and integer labels.

Small sets are NumPy arrays; folders of pictures are decoded when they are asked for.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.arrays import read_npz
from dualsmooth.runtime.datasets.cifar10 import CIFAR10_CLASSES, read_cifar10
from dualsmooth.runtime.datasets.class_names import match_labels
from dualsmooth.runtime.datasets.imagefolder import ImageFiles, read_folders
from dualsmooth.runtime.errors import InputError

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
NAMES = "fashion-mnist, cifar10, imagenet, imagefolder:PATH or npz:PATH"
_FOLDER_SIZE = 224

Images = npt.NDArray[np.uint8] | ImageFiles


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 [N,C,H,W], `labels` int64 [N], and the names of the classes (empty where unknown).

    `images[i]` is one image, `images[array]` some of them; large sets give `ImageFiles`, which decode on access.
    `indexed`: the numbers of the classes are fixed by those who published the set.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...] = ()
    indexed: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def named(self, classes: Sequence[str]) -> Dataset:
        """The same with other names of its classes, in the same order. Raises `InputError`."""
        count = len(self.classes) or int(self.labels.max(initial=-1)) + 1
        if len(classes) < count or (self.classes and len(classes) > count):
            raise InputError(
                f"--classes gives {len(classes)} names; {self.name} has {count} classes: name each of them"
            )
        return replace(self, classes=tuple(classes), indexed=False)

    def fitted(self, classes: Sequence[str], shape: tuple[int, int, int], owner: str = "the bundle") -> Dataset:
        """The same with labels that count the names `classes`, for networks that take `shape` [C,H,W].

        Classes are matched by name (`match_labels`); pictures of files are read as grey where C is 1. Raises
        `InputError` where names or sizes do not fit.
        """
        labels = match_labels(
            self.labels, self.classes, classes, data=self.name, owner=owner, indexed=self.indexed
        )  # fmt: skip
        images = self.images
        if isinstance(images, ImageFiles) and shape[0] == 1:
            images = replace(images, channels=1)
        _, *found = images.shape
        if tuple(found) != tuple(shape):
            files = self.name.startswith("imagefolder:") and shape[0] in (1, 3) and shape[1] == shape[2]
            fix = f"pass {self.name.partition('@')[0]}@{shape[1]}" if files else "resize them, or pass another data set"
            raise InputError(f"{self.name} has images of {in_words(found)}; {owner} takes {in_words(shape)}: {fix}")
        return replace(self, images=images, labels=labels, classes=tuple(classes))


def in_words(shape: Sequence[int]) -> str:
    """[C,H,W] without an order of axes: whoever reads it may have stored them otherwise."""
    channels, height, width = shape
    return f"{channels} channel{'s' if channels > 1 else ''}, {height} pixels high and {width} wide"


def fashion_mnist_folder() -> Path:
    """`fashion-mnist` in the folder named by DUALSMOOTH_DATA (`make data` fills build/data), else Debian's package."""
    named = os.environ.get("DUALSMOOTH_DATA")
    return Path(named) / "fashion-mnist" if named else FASHION_MNIST_DIR


def load_dataset(
    name: str, *, split: str = "test", data_dir: str | Path | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """Load a data set by name. `split` is `train` or `test`; `classes` name its classes otherwise, in its own order.
    Raises `InputError`.

    - `fashion-mnist`: a folder of IDX files, gzipped or not (default: see `fashion_mnist_folder`)
    - `cifar10`: torchvision's layout, `data_dir` holds `cifar-10-batches-py`
    - `imagenet`: torchvision's layout, `data_dir` holds `train/WNID/*.JPEG` and `val/WNID/*.JPEG`; the shorter side is
      resized to 256 and the middle 224 x 224 taken
    - `imagefolder:PATH` or `imagefolder:PATH@SIZE`: see `read_folders`; SIZE x SIZE pixels (default 224)
    - `npz:PATH`: arrays `x` uint8 [N,H,W] or [N,H,W,C] and `y` [N], see `read_npz`
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r} is unknown; expected train or test")
    found = _load(name, split, None if data_dir is None else Path(data_dir))
    return found if classes is None else found.named(classes)


def _load(name: str, split: str, data_dir: Path | None) -> Dataset:
    if name == "fashion-mnist":
        folder = fashion_mnist_folder() if data_dir is None else data_dir
        prefix = "train" if split == "train" else "t10k"
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
        return _checked(name, images[:, None], labels, FASHION_MNIST_CLASSES)
    if name.startswith("npz:"):
        return Dataset(name, *read_npz(Path(name.removeprefix("npz:")), split))
    if name in ("cifar10", "imagenet"):
        if data_dir is None:
            raise InputError(f"dataset {name} has no default folder; pass torchvision's with --data-dir")
        if name == "cifar10":
            pixels, targets = read_cifar10(data_dir, split)
            return _checked(name, pixels, targets, CIFAR10_CLASSES)
        if not (data_dir / ("train" if split == "train" else "val")).is_dir():
            raise InputError(f"{data_dir} has no folder for {split}; expected train/WNID/*.JPEG and val/WNID/*.JPEG")
        files, targets, classes = read_folders(data_dir, split, 224, 256, share=0.0)
        return Dataset(name, files, targets, classes, indexed=len(classes) == 1000)
    if name.startswith("imagefolder:"):
        found = re.fullmatch(r"imagefolder:(.+?)(?:@(\d{1,4}))?", name)
        size = int(found[2] or _FOLDER_SIZE) if found else 0
        if found is None or size < 1:
            raise InputError(f"dataset {name!r} names no folder; expected imagefolder:PATH or imagefolder:PATH@SIZE")
        return Dataset(name, *read_folders(Path(found[1]), split, size, size))
    raise InputError(f"dataset {name!r} is unknown; expected {NAMES}")


def _checked(
    name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic], classes: tuple[str, ...]
) -> Dataset:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise InputError(
            f"{name}: {len(images)} images but labels {labels.dtype} {list(labels.shape)}; expected one integer each"
        )
    numbers = labels.astype(np.int64)
    match_labels(numbers, classes, classes, data=name, owner="it")
    return Dataset(name, images, numbers, classes, indexed=True)


def _read_idx(folder: Path, stem: str, ndim: int) -> npt.NDArray[np.uint8]:
    path = next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)
    if path is None:
        raise InputError(
            f"no {stem}[.gz] in {folder}; fetch it with `make data` and set DUALSMOOTH_DATA=build/data, or pass the "
            "folder of the IDX files with --data-dir"
        )
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({error}); download the file again") from error
    header = 4 + 4 * ndim
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, ndim)):
        raise InputError(f"{path} is not an IDX file of bytes with {ndim} dimensions; download the file again")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    data = np.frombuffer(raw, np.uint8, offset=header)
    if data.size != int(np.prod(shape, dtype=np.int64)):
        raise InputError(
            f"{path} is truncated: {data.size} bytes of data for shape {list(shape)}; download the file again"
        )
    return data.reshape(shape)
