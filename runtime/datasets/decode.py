"""One picture to 8-bit pixels: the only place that decodes, for single images, class folders and training alike.

Formats and what is done to each is documented in docs/data.md. In short: what a viewer shows, and nothing that is not
certain. Needs Pillow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeGuard

import numpy as np

from dualsmooth.runtime.bundle.preprocessing import resizing
from dualsmooth.runtime.errors import InputError, one_line

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000")
"""What Pillow may decode (for EPS it would start Ghostscript)."""

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".gif", ".bmp", ".dib", ".webp", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".j2k",
)  # fmt: skip

_EXPECTED = "expected a picture of 8 or 16 bits: PNG, JPEG, TIFF, GIF, BMP, WebP, PPM or JPEG 2000"
_ORIENTATION = 0x0112
_BITS, _MEANING = 258, 262  # TIFF: BitsPerSample, PhotometricInterpretation (0: white is zero)


def decode(path: str | Path | BinaryIO, channels: int, size: tuple[int, int] | None = None) -> PIL.Image.Image:
    """The picture at `path`, or in that open file, in mode L (`channels` 1) or RGB (3), 8 bits, upright.

    With `size` (width, height), any other is refused before it is decoded. 16-bit pictures keep the upper 8 bits, EXIF
    orientation is applied, palettes become colours, colour profiles are not applied. Pictures that are not opaque
    everywhere, have several frames, or pixels of another depth are refused. Raises `InputError`.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise InputError(f"reading {path} needs Pillow; pip install 'dualsmooth[images]'") from error
    with _in_one_line(path), PIL.Image.open(path, formats=FORMATS) as opened:
        return _converted(path, opened, channels, size)


def converted(picture: PIL.Image.Image, channels: int, size: tuple[int, int] | None = None) -> PIL.Image.Image:
    """What `decode` would give from the file of a picture that is open already. Raises `InputError`."""
    name = getattr(picture, "filename", "") or "the picture"
    with _in_one_line(name):
        return _converted(name, picture, channels, size)


def is_opened(image: object) -> TypeGuard[PIL.Image.Image]:
    """Whether it is a picture of Pillow's, which is not imported to find out."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


@contextmanager
def _in_one_line(name: str | Path | BinaryIO) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged pictures fail in many ways
        raise InputError(f"cannot read {name} ({one_line(error)[:80]}); {_EXPECTED}") from error


def _converted(
    path: str | Path | BinaryIO, opened: PIL.Image.Image, channels: int, size: tuple[int, int] | None
) -> PIL.Image.Image:
    import PIL.ImageOps

    if size is not None and opened.size not in (size, size[::-1]):
        raise _other_size(path, opened.size, size)
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # that is a JPEG with a preview behind it
        raise InputError(f"{path} has {frames} frames or pages; pass one, saved as a picture")
    opened.load()
    picture = opened
    if opened.getexif().get(_ORIENTATION, 1) != 1:
        picture = PIL.ImageOps.exif_transpose(opened)
    if size is not None and picture.size != size:
        raise _other_size(path, picture.size, size)
    _check_opaque(path, picture)
    return _eight_bits(path, picture).convert("L" if channels == 1 else "RGB")


def is_picture(name: str) -> bool:
    """Whether a file of this name is read as a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _other_size(path: str | Path | BinaryIO, found: tuple[int, int], size: tuple[int, int]) -> InputError:
    return InputError(
        f"{path} is {found[0]} pixels wide and {found[1]} high; expected {size[0]} wide and {size[1]} high: "
        f"{resizing(*size[::-1])}"
    )


def _check_opaque(path: str | Path | BinaryIO, picture: PIL.Image.Image) -> None:
    """Refuse what has no colour of its own: which background is meant cannot be known."""
    clear = picture.info.get("transparency")
    if picture.getbands()[-1] in ("A", "a"):
        opaque = picture.getchannel(len(picture.getbands()) - 1).getextrema()[0] == 255
    elif clear is None:
        return
    elif picture.mode.startswith("I"):
        opaque = not (np.asarray(picture) == clear).any()
    else:
        opaque = picture.convert("RGBA").getchannel("A").getextrema()[0] == 255
    if not opaque:
        raise InputError(
            f"{path} has transparent pixels; put it on a background first, e.g. with Pillow: "
            "im = im.convert('RGBA'); Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im).convert('RGB')"
        )


def _eight_bits(path: str | Path | BinaryIO, picture: PIL.Image.Image) -> PIL.Image.Image:
    """The upper 8 bits of 16-bit greys; Pillow cuts greys off at 255, but takes the upper 8 bits of 16-bit colours."""
    mode, format = picture.mode, picture.format
    if mode.startswith("I;16") or (mode == "I" and format in ("PNG", "PPM")):
        import PIL.Image

        tags = getattr(picture, "tag_v2", {})
        bits = int(tags.get(_BITS, (16,))[0])
        if tags.get(_MEANING, 1) != 1 or not 8 <= bits <= 16:
            raise InputError(f"{path} is a TIFF whose white is zero, in {bits} bits; save it with 8 bits a channel")
        return PIL.Image.fromarray((np.asarray(picture) >> (bits - 8)).astype(np.uint8))
    if mode in ("I", "F") or mode.startswith("I;"):
        low, high = picture.getextrema()
        kind = "floating-point" if mode == "F" else "32-bit or signed"
        raise InputError(
            f"{path} has {kind} pixels, from {low:g} to {high:g}, whose scale is not known; save it with 8 or 16 bits "
            "a channel"
        )
    return picture
