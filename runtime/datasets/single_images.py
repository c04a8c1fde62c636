"""Single images, as files, pictures of Pillow's or arrays, to [C,H,W] arrays. Nothing is rescaled, and nothing resized
but by a bundle's preprocessing."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.preprocessing import Preprocessing, resizing
from dualsmooth.runtime.datasets.decode import converted, decode, is_opened
from dualsmooth.runtime.datasets.preprocess import preprocessed, preprocessed_array
from dualsmooth.runtime.errors import InputError, one_line

if TYPE_CHECKING:
    import PIL.Image

ImageLike: TypeAlias = "npt.ArrayLike | str | os.PathLike[str] | PIL.Image.Image"
"""What `checked_image` takes."""
Image = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
_EXPECTED = "expected an array [C,H,W] of float32 in [0, 1] or uint8, a picture of PIL's, or the path of a file"


def read_image(
    path: str | os.PathLike[str], shape: tuple[int, int, int], preprocessing: Preprocessing | None = None
) -> Image:
    """The image at `path` as uint8 [C,H,W] (PNG, JPEG, …), or as the array in an NPY file, arranged as `checked_image`
    does, and made `shape` by `preprocessing`.

    Pictures are converted to grey or RGB as `shape` wants, see `decode`. Raises `InputError` if the file cannot be
    used.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"image {path} {what}; expected a PNG, JPEG or NPY file")
    if path.suffix.lower() == ".npy":
        return _read_npy(path, shape, preprocessing)
    return _read_picture(path, shape, preprocessing)


def read_picture(data: bytes, shape: tuple[int, int, int], preprocessing: Preprocessing | None = None) -> Image:
    """The picture in `data`, the bytes of a PNG or JPEG file, …, as `read_image` reads it: uint8 [C,H,W]. Raises
    `InputError`, in which it is called `upload`."""
    return _read_picture(_Upload(data), shape, preprocessing)


class _Upload(io.BytesIO):
    """A file without a path."""

    def __repr__(self) -> str:
        return "upload"


def _read_npy(path: Path, shape: tuple[int, int, int], preprocessing: Preprocessing | None) -> Image:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers fail in many ways
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected an NPY file of numbers") from error
    if array.dtype not in (np.uint8, np.float32):
        raise InputError(f"{path} holds {array.dtype}; expected uint8, or float32 in [0, 1]")
    found = _arranged(array, shape)
    if found is None and preprocessing is not None:
        return preprocessed_array(array, preprocessing)
    if found is None:
        fix = "resize it"
        if array.ndim == 3 and (array.shape[2], *array.shape[:2]) == shape:
            fix = "it is channels last, save array.transpose(2, 0, 1)"
        elif array.ndim == 4:
            fix = "pass one image a file"
        raise InputError(f"image {path} has shape {list(array.shape)}; expected {list(shape)} (channels first): {fix}")
    return np.array(found, order="C")


def _read_picture(
    picture: Path | _Upload | PIL.Image.Image, shape: tuple[int, int, int], preprocessing: Preprocessing | None
) -> Image:
    channels, height, width = shape
    if channels not in (1, 3):
        name = picture if isinstance(picture, Path | _Upload) else "a picture"
        raise InputError(f"{name}: the bundle takes {channels} channels; pass an NPY file instead of a picture")
    size = (width, height) if preprocessing is None else None
    with warnings.catch_warnings(action="ignore"):  # of large pictures, which are refused here
        if preprocessing is not None:
            warnings.filterwarnings("error", ".*could be decompression bomb")
        if isinstance(picture, Path | _Upload):
            picture = decode(picture, channels, size)
        else:
            picture = converted(picture, channels, size)
        if preprocessing is not None:
            return preprocessed(picture, preprocessing)
        pixels = np.asarray(picture, np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def several(images: Iterable[ImageLike]) -> Iterable[ImageLike]:
    """`images` if they are images to go through one by one. Raises `InputError` for one image, which would be gone
    through too: a text by its letters, a picture [C,H,W] by its channels."""
    if isinstance(images, str | os.PathLike) or is_opened(images):
        what = f"the path {str(images)[:80]!r}" if isinstance(images, str | os.PathLike) else "one picture"
        fix = "pass it to certify, or a list of paths or images, such as sorted(Path(folder).glob('*.png'))"
        raise InputError(f"images is {what}; expected several images: {fix}")
    try:
        iter(images)
    except TypeError:
        raise InputError(f"images is a {type(images).__name__}; expected an iterable of images") from None
    return images


def _arranged(pixels: npt.NDArray[Any], shape: tuple[int, int, int]) -> npt.NDArray[Any] | None:
    """[C,H,W] from [C,H,W], from [H,W] where C is 1, and from [H,W,C] where the last axis alone is C long; None for
    others."""
    channels, *sides = shape
    if pixels.shape == shape:
        return pixels
    if channels == 1 and pixels.shape in (tuple(sides), (*sides, 1)):
        return pixels.reshape(shape)
    if pixels.shape == (*sides, channels) and channels not in sides:
        return pixels.transpose(2, 0, 1)
    return None


def checked_image(
    image: ImageLike, shape: tuple[int, int, int], preprocessing: Preprocessing | None = None
) -> npt.NDArray[np.float32]:
    """float32 [C,H,W] in [0, 1] from one image. Raises `InputError`, with what would mend it.

    `image`: an array, or a tensor that NumPy can read, of float32 in [0, 1] or uint8, as [C,H,W], as [H,W] where C is
    1, or as [H,W,C] where no other axis is C long; a picture of PIL's; or the path of a picture or NPY file. With
    `preprocessing`, uint8 arrays and pictures may have any size.
    """
    seen = _array(image, shape, preprocessing)
    pixels = _arranged(seen, shape)
    if pixels is None and preprocessing is not None:
        pixels = preprocessed_array(seen, preprocessing)
    if pixels is None:
        fix = _reshaped(seen.shape, shape)
        raise InputError(f"image has shape {list(seen.shape)}; expected {list(shape)} (channels first){fix}")
    if pixels.dtype == np.uint8:
        return np.asarray(pixels.astype(np.float32, order="C") / np.float32(255))
    if pixels.dtype.kind not in "fiu" or not np.isfinite(pixels).all():
        what = "holds NaN or infinite values" if pixels.dtype.kind == "f" else f"has dtype {pixels.dtype}"
        fix = ": pass image.astype(np.float32)" if pixels.dtype == bool else ""
        raise InputError(f"image {what}; expected float32 in [0, 1] or uint8{fix}")
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


def _array(image: Any, shape: tuple[int, int, int], preprocessing: Preprocessing | None) -> npt.NDArray[Any]:
    """The array that an image is, in whatever order its axes are. Raises `InputError`."""
    if isinstance(image, str | os.PathLike):
        return read_image(image, shape, preprocessing)
    if is_opened(image):
        return _read_picture(image, shape, preprocessing)
    if isinstance(image, list | tuple):
        raise InputError(
            f"image is a {type(image).__name__}; {_EXPECTED}: pass np.array(image, np.float32), np.uint8 for 0 to 255, "
            "or several images to certify_many"
        )
    try:
        bare = hasattr(image, "__dlpack__") and not hasattr(image, "__array__")
        pixels = np.from_dlpack(image) if bare else np.asarray(image)
    except Exception as error:  # such as a tensor on a GPU, or one with a gradient
        raise InputError(
            f"image is a {type(image).__name__} that NumPy cannot read ({one_line(error)}); expected an array [C,H,W], "
            "e.g. tensor.detach().cpu().numpy()"
        ) from error
    if pixels.dtype.kind not in "biufc" or (pixels.ndim == 0 and not isinstance(image, np.ndarray | np.generic)):
        raise InputError(f"image is a {type(image).__name__}; {_EXPECTED}")
    return pixels


def _reshaped(seen: tuple[int, ...], shape: tuple[int, int, int]) -> str:
    """What turns an array of shape `seen` into an image, where that is plain."""
    if len(seen) == 4 and seen[1:] in (shape, (*shape[1:], shape[0])):
        many = "each with certify_many" if seen[0] > 1 else "image[0]"
        turned = "" if seen[1:] == shape else ", with the channels first"
        return f": this is a batch, pass {many}{turned}"
    if seen == (*shape[1:], shape[0]):
        return ", and which axis holds the channels is not plain: if it is the last, pass image.transpose(2, 0, 1)"
    if (1, *seen[1:]) == shape:
        return ": this is a batch, pass each with certify_many"
    another = len(seen) == 3 and shape[0] in (seen[0], seen[2]) and sorted(seen) != sorted(shape)
    if another or (len(seen) == 2 and shape[0] == 1):
        return f": {resizing(*shape[1:])}"
    if len(seen) == 3 and seen[2] == 3 and shape[0] == 1:
        resized = "" if seen[:2] == shape[1:] else f".resize(({shape[2]}, {shape[1]}))"
        return f": these are colours, pass PIL.Image.fromarray(image){resized}, which is made grey"
    return ""


def _rescaled(low: float, high: float) -> str:
    """What turns values from `low` to `high` into [0, 1], where that is plain."""
    if low >= 0 and 2 < high <= 255:
        return ": pass image / 255"
    if low >= -1 and high <= 1:
        return ": if these are from -1 to 1, pass (image + 1) / 2"
    return ", unnormalised: normalisation is inside the networks"
