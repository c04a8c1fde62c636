"""Labelled image sets for training, `evaluate` and `demo`: uint8 images and integer labels.

Small sets are NumPy arrays; folders of pictures are decoded when they are asked for.
"""

from __future__ import annotations

import gzip
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.cifar import CIFAR10_CLASSES, read_cifar10
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.image_folders import ImageFiles, read_folders

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
_DAMAGE = (OSError, LookupError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)

NAMES = "fashion-mnist, cifar10, imagenet, imagefolder:PATH or npz:PATH"
_FOLDER_SIZE = 224

Images = npt.NDArray[np.uint8] | ImageFiles


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 [N,C,H,W], `labels` int64 [N], and the names of the classes (empty where unknown).

    `images[i]` is one image, `images[array]` some of them; large sets give `ImageFiles`, which decode on access.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def fashion_mnist_folder() -> Path:
    """`fashion-mnist` in the folder named by DUALSMOOTH_DATA (`make data` fills build/data), else Debian's package."""
    named = os.environ.get("DUALSMOOTH_DATA")
    return Path(named) / "fashion-mnist" if named else FASHION_MNIST_DIR


def load_dataset(name: str, *, split: str = "test", data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by name. `split` is `train` or `test`. Raises `InputError`.

    - `fashion-mnist`: a folder of IDX files, gzipped or not (default: see `fashion_mnist_folder`)
    - `cifar10`: torchvision's layout, `data_dir` holds `cifar-10-batches-py`
    - `imagenet`: torchvision's layout, `data_dir` holds `train/WNID/*.JPEG` and `val/WNID/*.JPEG`; the shorter side is
      resized to 256 and the middle 224 x 224 taken
    - `imagefolder:PATH` or `imagefolder:PATH@SIZE`: see `read_folders`; SIZE x SIZE pixels (default 224)
    - `npz:PATH`: arrays `x` uint8 [N,H,W] or [N,H,W,C] and `y` [N]; it has no splits
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r} is unknown; expected train or test")
    if name == "fashion-mnist":
        folder = Path(data_dir) if data_dir is not None else fashion_mnist_folder()
        prefix = "train" if split == "train" else "t10k"
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
        return _checked(name, images[:, None], labels, FASHION_MNIST_CLASSES)
    if name.startswith("npz:"):
        return _read_npz(Path(name.removeprefix("npz:")))
    if name in ("cifar10", "imagenet"):
        if data_dir is None:
            raise InputError(f"dataset {name} has no default folder; pass torchvision's with --data-dir")
        if name == "cifar10":
            pixels, targets = read_cifar10(Path(data_dir), split)
            return _checked(name, pixels, targets, CIFAR10_CLASSES)
        if not (Path(data_dir) / ("train" if split == "train" else "val")).is_dir():
            raise InputError(f"{data_dir} has no folder for {split}; expected train/WNID/*.JPEG and val/WNID/*.JPEG")
        return Dataset(name, *read_folders(Path(data_dir), split, 224, 256, share=0.0))
    if name.startswith("imagefolder:"):
        found = re.fullmatch(r"imagefolder:(.+?)(?:@(\d{1,4}))?", name)
        size = int(found[2] or _FOLDER_SIZE) if found else 0
        if found is None or size < 1:
            raise InputError(f"dataset {name!r} names no folder; expected imagefolder:PATH or imagefolder:PATH@SIZE")
        return Dataset(name, *read_folders(Path(found[1]), split, size, size))
    raise InputError(f"dataset {name!r} is unknown; expected {NAMES}")


def _read_npz(path: Path) -> Dataset:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["x"], arrays["y"]
            classes = tuple(str(c) for c in arrays["classes"]) if "classes" in arrays else ()
    except _DAMAGE as error:
        raise InputError(
            f"cannot read {path} ({type(error).__name__}: {str(error)[:90]}); expected npz arrays x (uint8) and y"
        ) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(f"{path}: x is {images.dtype} {list(images.shape)}; expected uint8 [N,H,W] or [N,H,W,C]")
    images = images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return _checked(f"npz:{path}", images, labels, classes)


def _checked(
    name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic], classes: tuple[str, ...]
) -> Dataset:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise InputError(
            f"{name}: {len(images)} images but labels {labels.dtype} {list(labels.shape)}; expected one integer each"
        )
    return Dataset(name, images, labels.astype(np.int64), classes)


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
