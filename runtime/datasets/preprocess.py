"""Pictures of any size to the network's input, as a bundle's preprocessing says: the only place that resizes and cuts.

Resampling is Pillow's, on 8-bit pixels in whole numbers: the same on every machine, and the result is on the lattice
that exact noise needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.errors import InputError

if TYPE_CHECKING:
    import PIL.Image

MOST_PIXELS = 1 << 26
"""Of a picture after resizing; a strip would become huge before its middle is cut out."""


def preprocessed(picture: PIL.Image.Image, how: Preprocessing) -> npt.NDArray[np.uint8]:
    """The network's input [C,H,W] from a picture in mode L or RGB. One that has the input's size is taken as it is, so
    that doing it twice is doing it once. Raises `InputError` for a strip that would become huge."""
    channels, height, width = how.shape
    if picture.size != (width, height):
        size = shorter_side(picture.size, how.resize) if isinstance(how.resize, int) else how.resize[::-1]
        if size[0] * size[1] > MOST_PIXELS:
            raise InputError(
                f"a picture {picture.size[0]} pixels wide and {picture.size[1]} high would be {size[0]} x {size[1]} "
                f"with its {how.words.partition(' (')[0]}; cut out the part that is meant"
            )
        picture = middle(resized(picture, size, how.resampling), width, height)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def preprocessed_array(pixels: npt.NDArray[Any], how: Preprocessing) -> npt.NDArray[np.uint8]:
    """The same from a picture's pixels: uint8 [H,W], [C,H,W] or [H,W,C] where C is 1 or 3. Raises `InputError` for
    others, and where both ends of the shape could be the channels."""
    shape, kind = pixels.shape, f"{pixels.dtype} {list(pixels.shape)}"
    ends = [axis for axis in (0, 2) if pixels.ndim == 3 and shape[axis] in (1, 3)]
    if pixels.dtype != np.uint8 or not pixels.size or (pixels.ndim != 2 and len(ends) != 1):
        raise InputError(
            f"image is {kind}; expected the network's input {list(how.shape)}, or a picture of any size to resize: "
            f"uint8 [C,H,W] or [H,W,C] with 1 or 3 channels, a picture of PIL's, or the path of a file{_why_not(shape)}"
        )
    try:
        from PIL.Image import fromarray
    except ImportError as error:
        raise InputError(f"resizing an image {kind} needs Pillow; pip install 'dualsmooth[images]'") from error
    last = pixels.transpose(1, 2, 0) if ends == [0] else pixels
    return preprocessed(fromarray(np.ascontiguousarray(last.squeeze(2) if last.shape[2:] == (1,) else last)), how)


def _why_not(shape: tuple[int, ...]) -> str:
    """What is probably wrong with an array of this shape, and the fix."""
    if len(shape) == 4:
        return ": this is a batch, pass each with certify_many"
    return ": if the fourth channel is alpha, pass image[..., :3]" if len(shape) == 3 and shape[2] == 4 else ""


def shorter_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """Width and height where the shorter of both is `wanted` and their ratio stays, cut to whole pixels."""
    width, height = size
    return (wanted, int(wanted * height / width)) if width <= height else (int(wanted * width / height), wanted)


def resized(picture: PIL.Image.Image, size: tuple[int, int], resampling: str, **how: Any) -> PIL.Image.Image:
    """The picture with another width and height."""
    from PIL.Image import Resampling

    return picture.resize(size, Resampling[resampling.upper()], **how)


def middle(picture: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    """The middle of a picture."""
    left, top = round((picture.size[0] - width) / 2), round((picture.size[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))
