"""Read single images: PNG and JPEG (with Pillow) and NPY, as [C,H,W] arrays. Nothing is resized or rescaled."""

from __future__ import annotations

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
    array = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path, shape[0])
    if array.ndim == 2:
        array = array[None]
    if array.shape != shape:
        raise InputError(
            f"image {path} has shape {list(array.shape)}; expected {list(shape)} (channels first): resize it"
        )
    return array


def _read_npy(path: Path) -> Image:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected an NPY file of numbers") from error
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.float32):
        raise InputError(
            f"{path} holds {getattr(array, 'dtype', 'several arrays')}; expected uint8, or float32 in [0, 1]"
        )
    return array


def _read_picture(path: Path, channels: int) -> Image:
    try:
        import PIL.Image
    except ImportError as error:
        raise InputError(f"reading {path} needs Pillow; install it with pip install 'dualsmooth[report]'") from error
    if channels not in (1, 3):
        raise InputError(f"{path}: the bundle takes {channels} channels; pass an NPY file instead of a picture")
    try:
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path} ({str(error)[:80]}); expected a PNG, JPEG or NPY file") from error
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
