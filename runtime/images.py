"""Read single images: PNG and JPEG (with Pillow) and NPY, as [C,H,W] arrays. Nothing is resized or rescaled."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError

Image = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def read_image(path: str | Path, shape: tuple[int, int, int]) -> Image:
    """The image at `path` as uint8 [C,H,W] (PNG, JPEG), or as the array in an NPY file ([C,H,W], or [H,W] if C = 1).

    PNG and JPEG are converted to grey or RGB as `shape` wants. Raises `InputError` if the file cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"image {path} does not exist; expected a PNG, JPEG or NPY file")
    return _read_npy(path, shape) if path.suffix.lower() == ".npy" else _read_picture(path, shape)


def _check_shape(path: Path, found: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    """Before anything is decoded: what a header claims takes no memory."""
    if found != shape:
        raise InputError(f"image {path} has shape {list(found)}; expected {list(shape)} (channels first): resize it")


def _read_npy(path: Path, shape: tuple[int, int, int]) -> Image:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers fail in many ways
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected an NPY file of numbers") from error
    if array.dtype not in (np.uint8, np.float32):
        raise InputError(f"{path} holds {array.dtype}; expected uint8, or float32 in [0, 1]")
    _check_shape(path, (1, *array.shape) if array.ndim == 2 else array.shape, shape)
    return np.array(array).reshape(shape)


def _read_picture(path: Path, shape: tuple[int, int, int]) -> Image:
    try:
        import PIL.Image
    except ImportError as error:
        raise InputError(f"reading {path} needs Pillow; install it with pip install 'dualsmooth[report]'") from error
    channels = shape[0]
    if channels not in (1, 3):
        raise InputError(f"{path}: the bundle takes {channels} channels; pass an NPY file instead of a picture")
    try:
        with warnings.catch_warnings(action="ignore"), PIL.Image.open(path, formats=("PNG", "JPEG")) as picture:
            _check_shape(path, (channels, picture.height, picture.width), shape)
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.uint8)
    except InputError:
        raise
    except Exception as error:  # damaged pictures fail in many ways
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected a PNG, JPEG or NPY file") from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
