"""Labelled images from an NPZ file: read where it is certain what its arrays mean, refused with what was seen if not.

Documented in docs/data.md: names of the arrays, shapes, kinds of pixels and of labels.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.class_names import in_order
from dualsmooth.runtime.datasets.dataset import Dataset, Format
from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.runtime.graphs.foreign_files import ARCHIVE, ARRAY, HDF5, MATLAB, ZIP, kind_of

Array = npt.NDArray[Any]

_PIXELS = ("x", "images", "image", "data", "pixels", "arr_0")
_LABELS = ("y", "labels", "label", "targets", "target", "arr_1")
_CLASSES = ("classes", "class_names", "label_names", "target_names", "names")
_SPLITS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}
_DAMAGE = (OSError, LookupError, ValueError, TypeError, EOFError, NotImplementedError, MemoryError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip
_WANTED = "expected npz arrays x (uint8 [N,H,W] or [N,H,W,C]) and y (a class from 0 for each)"
_HINTS = {
    MATLAB: "scipy.io.loadmat reads it",
    HDF5: "h5py reads it; MATLAB 7.3 writes such files too",
    ARRAY: "without labels",
}


def load(name: str, split: str, data_dir: Path | None) -> Dataset:
    """The arrays of the file that `npz:PATH` names, see `read_npz`."""
    return Dataset(name, *read_npz(Path(name.removeprefix("npz:")), split))


def read_npz(path: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...]]:
    """Images uint8 [N,C,H,W], labels [N] and class names (empty where unknown) of the NPZ file at `path`.

    Arrays of a `split` (x_train, test_images, …) are used where there are some. Raises `InputError`.
    """
    try:
        if (kind := kind_of(path)) not in ("", ARCHIVE, ZIP):
            hint = f" ({_HINTS[kind]})" if kind in _HINTS else ""
            raise InputError(f"{path} is {kind}{hint}; {_WANTED}, from numpy.savez")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if not name.startswith("__MACOSX")]
            x, y = (_chosen(path, names, wanted, split) for wanted in (_PIXELS, _LABELS))
            images, labels = _of(arrays, x, path), _of(arrays, y, path)
            named = [name for name in names if name.lower() in _CLASSES]
            classes = _texts(path, named[0], _of(arrays, named[0], path)) if named else ()
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path} ({type(error).__name__}: {one_line(error)[:90]}); {_WANTED}") from error
    numbers, classes = _labels(path, y, labels, classes)
    if len(numbers) != len(images):
        raise InputError(f"{path}: {_seen(images)} as images but {_seen(labels)} as labels; expected one label each")
    if not images.size:
        raise InputError(f"{path} holds no images; {_WANTED}")
    return _levels(path, x, _channels_first(path, x, images)), numbers, classes


def _of(arrays: Any, name: str, path: Path) -> Array:
    try:
        return np.asarray(arrays[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{path}: {name} is an array of Python objects (as of images of several sizes); {_WANTED}"
        ) from error


def _chosen(path: Path, names: Sequence[str], wanted: Sequence[str], split: str) -> str:
    """The one array called by a name of `wanted`, that of the split where there is one."""
    low = {name: name.lower() for name in names}
    for part in _SPLITS[split]:
        mine = {form for word in wanted for form in (f"{word}_{part}", f"{part}_{word}", f"{word}{part}")}
        found = [name for name in names if low[name] in mine]
        if found:
            break
    else:
        found = [name for name in names if low[name] in wanted]
    if len(found) != 1:
        what = f"{' and '.join(found)}, of which one is meant" if found else "none that is known"
        raise InputError(f"{path} holds {', '.join(names[:8])}: for {wanted[0]} ({split}) {what}; {_WANTED}")
    return found[0]


def _channels_first(path: Path, name: str, images: Array) -> Array:
    """[N,C,H,W] of [N,H,W] or [N,H,W,C]."""
    if images.ndim == 3:
        return images[:, None]
    fix = "reshape it" if images.ndim < 3 else "move the axes"
    if images.ndim == 4:
        _, first, middle, last = images.shape
        if last in (1, 3) or last < min(first, middle):
            return images.transpose(0, 3, 1, 2)
        if first < min(middle, last):
            fix = f"it is channels first: save {name}.transpose(0, 2, 3, 1)"
    raise InputError(f"{path}: {name} is {_seen(images)}; expected [N,H,W] or [N,H,W,C]: {fix}")


def _levels(path: Path, name: str, images: Array) -> npt.NDArray[np.uint8]:
    """uint8 of pixels that are 8-bit levels, as such or divided by 255: never rounded."""
    if images.dtype == np.uint8 and (not images.size or images.max() != 1):
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "iuf":
        raise InputError(f"{path}: {name} is {_seen(images)}; {_WANTED}")
    low, high = images.min(), images.max()
    whole = images.dtype.kind != "f" or bool((images == np.rint(images)).all())
    if low >= 0 and high <= 255 and high != 1 and whole:
        return np.ascontiguousarray(images, np.uint8)
    if images.dtype.kind == "f" and 0 <= low <= high <= 1:
        slack = 4 * 255 * float(np.finfo(images.dtype).eps)
        levels = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), 256):
            scaled = images[start : start + 256].astype(np.float64) * 255
            levels[start : start + 256] = np.rint(scaled)
            if np.abs(scaled - np.rint(scaled)).max() > slack:
                break
        else:
            return levels
    raise InputError(
        f"{path}: {name} is {images.dtype} with values from {low:g} to {high:g}, which are no 8-bit levels (0 to 255, "
        f"or these divided by 255); save uint8, unnormalised, e.g. numpy.rint(255 * {name}).astype('uint8')"
    )


def _labels(
    path: Path, name: str, labels: Array, classes: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Class numbers [N] of integers, names or one-hot rows, and the names of the classes."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim == 1 and flat.dtype.kind in "US":
        names = _texts(path, name, flat)
        classes = classes or in_order(set(names))
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise InputError(
                f"{path}: {name} names {unknown[0]!r}, which is not among its classes {', '.join(classes[:9])}"
            )
        place = {name: number for number, name in enumerate(classes)}
        return np.array([place[name] for name in names], np.int64), classes
    if flat.ndim == 2 and flat.shape[1] > 1 and _one_hot(flat):
        flat = flat.argmax(axis=1)
    if flat.ndim == 1 and flat.dtype.kind == "f" and np.isfinite(flat).all() and (flat == np.rint(flat)).all():
        flat = flat.astype(np.int64)
    if flat.ndim != 1 or flat.dtype.kind not in "biu" or (flat.size and flat.max() >= 1 << 31):
        raise InputError(
            f"{path}: {name} is {_seen(labels)}; expected one class a row: an integer from 0, a name, or a one-hot row"
        )
    return flat.astype(np.int64), classes


def _one_hot(rows: Array) -> bool:
    numbers = rows.dtype.kind in "biuf"
    return numbers and bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all())


def _texts(path: Path, what: str, array: Array) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise InputError(f"{path}: {what} is {_seen(array)}; expected a list of names")
    try:
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {what} holds names that are not UTF-8; save them as text") from error


def _seen(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"


FORMAT = Format(
    form="npz:PATH",
    help="arrays of images, uint8 [N,H,W] or [N,H,W,C], and labels, as numpy.savez writes them",
    load=load,
)
