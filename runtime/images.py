"""Read single images: pictures (with Pillow) and NPY, as [C,H,W] arrays. Nothing is resized or rescaled."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.decode import decode
from dualsmooth.runtime.errors import InputError

Image = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def read_image(path: str | Path, shape: tuple[int, int, int]) -> Image:
    """The image at `path` as uint8 [C,H,W] (PNG, JPEG, …), or as the array in an NPY file ([C,H,W], or [H,W] if C = 1).

    Pictures are converted to grey or RGB as `shape` wants, see `decode`. Raises `InputError` if the file cannot be
    used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"image {path} does not exist; expected a PNG, JPEG or NPY file")
    return _read_npy(path, shape) if path.suffix.lower() == ".npy" else _read_picture(path, shape)


def _read_npy(path: Path, shape: tuple[int, int, int]) -> Image:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers fail in many ways
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected an NPY file of numbers") from error
    if array.dtype not in (np.uint8, np.float32):
        raise InputError(f"{path} holds {array.dtype}; expected uint8, or float32 in [0, 1]")
    if array.shape != shape and (shape[0] != 1 or array.shape != shape[1:]):
        fix = "resize it"
        if array.ndim == 3 and (array.shape[2], *array.shape[:2]) == shape:
            fix = "it is channels last, save array.transpose(2, 0, 1)"
        elif array.ndim == 4:
            fix = "pass one image a file"
        raise InputError(f"image {path} has shape {list(array.shape)}; expected {list(shape)} (channels first): {fix}")
    return np.array(array).reshape(shape)


def _read_picture(path: Path, shape: tuple[int, int, int]) -> Image:
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"{path}: the bundle takes {channels} channels; pass an NPY file instead of a picture")
    with warnings.catch_warnings(action="ignore"):  # of large pictures, which are refused here
        pixels = np.asarray(decode(path, channels, (width, height)), np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
