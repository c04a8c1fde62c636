"""Fashion-MNIST: IDX files as its authors publish them."""

from __future__ import annotations

import os
from pathlib import Path

from dualsmooth.runtime.datasets.dataset import Dataset, Format, published
from dualsmooth.runtime.datasets.idx import read_idx

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts it."""
FIX = (
    "fetch it with `make data` and set DUALSMOOTH_DATA=build/data, or pass the folder of the IDX files with --data-dir"
)


def fashion_mnist_folder() -> Path:
    """`fashion-mnist` in the folder named by DUALSMOOTH_DATA (`make data` fills build/data), else Debian's package."""
    named = os.environ.get("DUALSMOOTH_DATA")
    return Path(named) / "fashion-mnist" if named else FASHION_MNIST_DIR


def load(name: str, split: str, data_dir: Path | None) -> Dataset:
    """Images uint8 [N,1,28,28] of the IDX files in `data_dir` (default: `fashion_mnist_folder`)."""
    folder = fashion_mnist_folder() if data_dir is None else data_dir
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(folder, f"{prefix}-images-idx3-ubyte", 3, fix=FIX)
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1, fix=FIX)
    return published(name, images[:, None], labels, FASHION_MNIST_CLASSES)


FORMAT = Format(
    form="fashion-mnist",
    help="IDX files, gzipped or not, in --data-dir (default: $DUALSMOOTH_DATA/fashion-mnist, else Debian's package)",
    load=load,
)
