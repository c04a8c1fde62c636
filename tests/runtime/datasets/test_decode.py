"""Pictures of every mode, as Pillow and others write them: 8-bit pixels as a viewer shows them, or a refusal."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualsmooth.runtime.datasets.decode import decode
from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.datasets.single_images import read_image
from dualsmooth.runtime.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
COLOR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
PICTURE = Image.fromarray(COLOR)
FEW = PICTURE.quantize(16)
DEEP_GREY, DEEP_COLOR = GREY.astype(np.uint16) * 257, COLOR.astype(np.uint16) * 257


def png(pixels: np.ndarray, kind: int, *, extra: bytes = b"") -> bytes:
    """A 16-bit PNG [H,W] or [H,W,C], written by hand: Pillow writes none of colours."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def clear(value: int) -> bytes:
    """The chunk that makes one grey transparent."""
    data = struct.pack(">H", value)
    return struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


def pgm(pixels: np.ndarray, kind: str, most: int) -> bytes:
    return f"{kind}\n9 6\n{most}\n".encode() + pixels.astype(">u2").tobytes()


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def translucent() -> Image.Image:
    picture = PICTURE.convert("RGBA")
    picture.putpixel((4, 2), (1, 2, 3, 128))
    return picture


ONE_BIT = Image.fromarray(GREY).convert("1")
READ: dict[str, tuple[str, object, np.ndarray]] = {
    "16-bit grey png": ("a.png", Image.fromarray(DEEP_GREY), rgb(GREY)),
    "16-bit grey tiff": ("a.tif", Image.fromarray(DEEP_GREY), rgb(GREY)),
    "16-bit grey tiff, big endian": ("a.tiff", Image.fromarray(DEEP_GREY.astype(">u2")), rgb(GREY)),
    "16-bit grey, shifted by 8": ("a.png", Image.fromarray(GREY.astype(np.uint16) << 8), rgb(GREY)),
    "16-bit colour png": ("a.png", png(DEEP_COLOR, 2), COLOR),
    "16-bit grey and alpha png": ("a.png", png(np.dstack([DEEP_GREY, np.full_like(DEEP_GREY, 65535)]), 4), rgb(GREY)),
    "16-bit grey, a tone that is not there is clear": ("a.png", png(DEEP_GREY, 0, extra=clear(1)), rgb(GREY)),
    "16-bit pgm": ("a.pgm", pgm(DEEP_GREY, "P5", 65535), rgb(GREY)),
    "10-bit pgm": ("a.pgm", pgm(GREY.astype(np.uint16) * 4, "P5", 1023), rgb(GREY)),
    "16-bit ppm": ("a.ppm", pgm(DEEP_COLOR, "P6", 65535), COLOR),
    "1-bit png": ("a.png", ONE_BIT, np.asarray(ONE_BIT.convert("RGB"))),
    "1-bit tiff": ("a.tif", ONE_BIT, np.asarray(ONE_BIT.convert("RGB"))),
    "palette png": ("a.png", FEW, np.asarray(FEW.convert("RGB"))),
    "palette gif": ("a.gif", FEW, np.asarray(FEW.convert("RGB"))),
    "opaque rgba": ("a.png", PICTURE.convert("RGBA"), COLOR),
    "opaque la": ("a.png", Image.fromarray(GREY).convert("LA"), rgb(GREY)),
    "bmp": ("a.bmp", PICTURE, COLOR),
    "tiff": ("a.tif", PICTURE, COLOR),
    "jpeg 2000": ("a.jp2", PICTURE, COLOR),
    "cmyk tiff": ("a.tif", PICTURE.convert("CMYK"), np.asarray(PICTURE.convert("CMYK").convert("RGB"))),
}
REFUSED: dict[str, tuple[str, object, str]] = {
    "32-bit integers": ("a.tif", Image.fromarray(GREY.astype(np.int32) * 257), "32-bit or signed pixels, from"),
    "floats": ("a.tif", Image.fromarray(GREY.astype(np.float32) / 255), "floating-point pixels, from 0.0"),
    "float map": ("a.ppm", b"Pf\n9 6\n-1.0\n" + (GREY / 255).astype("<f4").tobytes(), "floating-point pixels"),
    "translucent png": ("a.png", translucent(), "transparent pixels"),
    "translucent webp": ("a.webp", translucent(), "transparent pixels"),
    "translucent tiff": ("a.tif", translucent(), "transparent pixels"),
    "16-bit grey, one tone is clear": (
        "a.png", png(DEEP_GREY, 0, extra=clear(int(DEEP_GREY[1, 1]))), "transparent pixels"
    ),
    "postscript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n", "cannot read"),
    "cut off": ("a.png", png(DEEP_COLOR, 2)[:-60], "cannot read"),
}  # fmt: skip


def saved(path: Path, content: object, **options: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, **options)  # type: ignore[attr-defined]
    return path


def everywhere(path: Path) -> list[np.ndarray]:
    """The same picture [3,6,9] as a single image and [3,6,6] as a file of a class folder."""
    middle = ImageFiles(np.array([os.fsencode(path)]), 6, 6)[0]
    return [read_image(path, (3, 6, 9)), middle]


@pytest.mark.parametrize("kind", READ)
def test_pictures_are_read_as_they_look_and_everywhere_the_same(kind: str, tmp_path: Path) -> None:
    name, content, expected = READ[kind]
    whole, middle = everywhere(saved(tmp_path / name, content))
    np.testing.assert_array_equal(whole, expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(middle, whole[:, :, 2:8])
    grey = np.asarray(Image.fromarray(expected).convert("L"))
    assert np.abs(read_image(tmp_path / name, (1, 6, 9))[0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_certain_is_refused_everywhere(kind: str, tmp_path: Path) -> None:
    name, content, message = REFUSED[kind]
    path = saved(tmp_path / name, content)
    for read in (lambda: decode(path, 3), lambda: read_image(path, (1, 6, 9)), lambda: everywhere(path)):
        with pytest.raises(InputError, match=message):
            read()


def test_a_tone_or_palette_entry_that_is_clear(tmp_path: Path) -> None:
    there = int(np.asarray(FEW)[0, 0])
    for content, options, refused in (
        (FEW, {"transparency": there}, True),
        (Image.fromarray(GREY), {"transparency": int(GREY[0, 0])}, True),
        (PICTURE, {"transparency": (1, 2, 3)}, False),
    ):
        path = saved(tmp_path / "a.png", content, **options)
        if refused:
            with pytest.raises(InputError, match="transparent"):
                decode(path, 3)
        else:
            np.testing.assert_array_equal(np.asarray(decode(path, 3)), COLOR)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_several_frames_are_refused(name: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / name, save_all=True, append_images=[PICTURE.rotate(180)])
    with pytest.raises(InputError, match="has 2 frames or pages"):
        decode(tmp_path / name, 3)


def test_the_preview_behind_a_photo_is_no_frame(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.mpo", save_all=True, append_images=[PICTURE.rotate(180)])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    PICTURE.save(tmp_path / "b.jpg")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.jpg", 3)), np.asarray(decode(tmp_path / "b.jpg", 3)))


UPRIGHT = {
    1: COLOR, 2: COLOR[:, ::-1], 3: COLOR[::-1, ::-1], 4: COLOR[::-1], 5: COLOR.transpose(1, 0, 2),
    6: np.rot90(COLOR, -1), 7: np.rot90(COLOR, 2).transpose(1, 0, 2), 8: np.rot90(COLOR),
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_exif_orientation_is_applied(orientation: int, name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    PICTURE.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    expected = UPRIGHT[orientation].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / name, expected.shape), expected)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pixels wide"):
        read_image(tmp_path / name, (3, 9, 6) if expected.shape[1] == 6 else (3, 6, 9))


def test_a_color_profile_is_not_applied(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    PICTURE.save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.png", 3)), COLOR)
