"""CIFAR-10 in torchvision's layout: `cifar-10-batches-py` with five training batches and one test batch.

These files are pickles. Unpickling can run code, so they are read by an unpickler that knows a few names, gives each a
stand-in that only keeps its arguments, and refuses all others; the pixels are then read from the bytes that were kept.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.dataset import Dataset, Format, data_folder, published
from dualsmooth.runtime.errors import InputError, one_line

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_FOLDER = "cifar-10-batches-py"
_SHAPE = (3, 32, 32)


def load(name: str, split: str, data_dir: Path | None) -> Dataset:
    """Images uint8 [N,3,32,32]; `data_dir` holds the batches or their folder.

    Nothing in a file is executed. Raises `InputError` where one is missing, damaged, or not such a batch.
    """
    folder = data_folder(name, data_dir)
    inner = folder / _FOLDER
    root = inner if inner.is_dir() else folder
    names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    parts = [_read_batch(root / name) for name in names]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return published(name, images, labels, CIFAR10_CLASSES)


def _read_batch(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}; pass the folder that holds {_FOLDER} with --data-dir")
    try:
        values = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in values.items()}
        images = _pixels(values["data"])
        labels = np.array([_label(value) for value in values["labels"]], np.int64)
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
    except Exception as error:  # damaged pickles fail in many ways
        raise InputError(
            f"{path} is not a CIFAR-10 batch ({type(error).__name__}: {one_line(error)[:90]}); download it again"
        ) from error
    return images, labels


def _label(value: Any) -> int:
    if type(value) is not int or not 0 <= value < len(CIFAR10_CLASSES):
        raise ValueError("a label is not an integer from 0 to 9")
    return value


def _pixels(array: Any) -> npt.NDArray[np.uint8]:
    """uint8 [N,3,32,32] from the kept state of an array: (version, shape, dtype, is_fortran, bytes)."""
    state = array.state if isinstance(array, _Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("data is not an array")
    _, shape, dtype, fortran, raw = state
    if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1") or fortran or not isinstance(raw, bytes):
        raise ValueError("data is not an array of bytes in C order")
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] != math.prod(_SHAPE):
        raise ValueError(f"data has shape {shape!r:.40}, expected [N, 3072]")
    return np.frombuffer(raw, np.uint8).reshape(shape[0], *_SHAPE)


class _Array:
    """Stands for a NumPy array; keeps the state that it would be restored from."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands for a NumPy dtype; keeps its name."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like mean nothing for bytes."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in old pickles."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a known name; nothing is ever imported."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


FORMAT = Format(
    form="cifar10",
    help="torchvision's cifar-10-batches-py in --data-dir",
    load=load,
)
