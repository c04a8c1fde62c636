"""Read single images: pictures (with Pillow) and NPY, as [C,H,W] arrays. Nothing is resized or rescaled."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.decode import decode
from dualsmooth.runtime.errors import InputError, one_line

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


def checked_image(image: npt.ArrayLike, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """float32 [C,H,W] in [0, 1] from float32 or uint8. Raises `InputError`, with what would mend the image."""
    try:
        pixels = np.asarray(image)
    except ValueError as error:
        raise InputError("image is a ragged list; expected an array [C,H,W]") from error
    except Exception as error:  # such as a tensor on a GPU, or one with a gradient
        raise InputError(
            f"image is a {type(image).__name__} that NumPy cannot read ({one_line(error)}); expected an array [C,H,W], "
            "e.g. tensor.detach().cpu().numpy()"
        ) from error
    if pixels.dtype == object:
        raise InputError(f"image is a {type(image).__name__}; expected an array [C,H,W] of float32 in [0, 1] or uint8")
    if pixels.shape != shape:
        fix = _reshaped(pixels.shape, shape)
        raise InputError(f"image has shape {list(pixels.shape)}; expected {list(shape)} (channels first){fix}")
    if pixels.dtype == np.uint8:
        return np.asarray(pixels.astype(np.float32) / np.float32(255))
    if pixels.dtype.kind not in "fiu" or not np.isfinite(pixels).all():
        seen = "holds NaN or infinite values" if pixels.dtype.kind == "f" else f"has dtype {pixels.dtype}"
        raise InputError(f"image {seen}; expected float32 in [0, 1] or uint8")
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "iu":
        fix = ": pass image.astype(np.uint8)" if low >= 0 and high <= 255 else ""
        raise InputError(f"image has dtype {pixels.dtype}; expected float32 in [0, 1] or uint8{fix}")
    if low < 0 or high > 1:
        raise InputError(f"image ranges from {low:g} to {high:g}; expected float32 in [0, 1]{_rescaled(low, high)}")
    if pixels.dtype != np.float32:
        raise InputError(
            f"image has dtype {pixels.dtype}; expected float32 in [0, 1] or uint8: pass image.astype(np.float32)"
        )
    return np.ascontiguousarray(pixels)


def _reshaped(seen: tuple[int, ...], shape: tuple[int, int, int]) -> str:
    """What turns an array of shape `seen` into an image, where that is plain."""
    if len(seen) == 4 and seen[1:] in (shape, (*shape[1:], shape[0])):
        many = "each with certify_many" if seen[0] > 1 else "image[0]"
        turned = "" if seen[1:] == shape else ", with the channels first"
        return f": this is a batch, pass {many}{turned}"
    if seen == (*shape[1:], shape[0]):
        return ": these are channels last, pass image.transpose(2, 0, 1)"
    return ": pass image[None]" if (1, *seen) == shape else ""


def _rescaled(low: float, high: float) -> str:
    """What turns values from `low` to `high` into [0, 1], where that is plain."""
    if low >= 0 and 2 < high <= 255:
        return ": pass image / 255"
    if low >= -1 and high <= 1:
        return ": if these are from -1 to 1, pass (image + 1) / 2"
    return ", unnormalised: normalisation is inside the networks"
