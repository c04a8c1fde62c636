"""The formats of data sets, in one table: what names there are, and who reads which.

To add one: a file here with a `Format` (see `dataset`), and a row in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dualsmooth.runtime.datasets import cifar10, fashion_mnist, imagefolder, imagenet, npz
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import InputError, one_of

FORMATS = (fashion_mnist.FORMAT, cifar10.FORMAT, imagenet.FORMAT, imagefolder.FORMAT, npz.FORMAT)
NAMES = one_of(format.form for format in FORMATS)
"""How a data set is named, for help and errors."""
DETAILS = "; ".join(f"{format.form}: {format.help}" for format in FORMATS)
"""What each of these is, for help."""


def load_dataset(
    name: str, *, split: str = "test", data_dir: str | Path | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """Load the data set of a name (`NAMES`, `DETAILS`). `split` is `train` or `test`; `data_dir` the folder of the sets
    whose names give no path; `classes` name its classes otherwise, in its own order. Raises `InputError`.

    >>> dataset = load_dataset("npz:runtime/data/fashion-mnist-test-200.npz")
    >>> dataset.images.shape, dataset.classes[int(dataset.labels[0])]
    ((200, 1, 28, 28), 'Ankle boot')
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r} is unknown; expected train or test")
    found = next((format for format in FORMATS if format.names(name)), None)
    if found is None:
        raise InputError(f"dataset {name!r} is unknown; expected {NAMES}")
    dataset = found.load(name, split, None if data_dir is None else Path(data_dir))
    return dataset if classes is None else dataset.named(classes)
