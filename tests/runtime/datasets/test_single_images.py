"""Images come in as they are: right shape and values, or a clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import dualsmooth as ds
from dualsmooth.runtime.datasets.single_images import checked_image, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)


def test_png_rgb_is_channels_first(tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (3, 4, 5)), PIXELS)


def test_png_grey_and_palette_are_converted(tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (1, 4, 5)), PIXELS[:1])
    assert read_image(tmp_path / "a.png", (3, 4, 5)).shape == (3, 4, 5)


def test_npy_keeps_its_dtype_and_gains_a_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS[0].astype(np.float32) / 255)
    found = read_image(tmp_path / "a.npy", (1, 4, 5))
    assert found.dtype == np.float32
    assert found.shape == (1, 4, 5)


def test_nothing_is_resized(tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    with pytest.raises(ds.InputError, match="is 5 pixels wide and 4 high; expected 28 wide and 28 high"):
        read_image(tmp_path / "a.png", (1, 28, 28))


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"


def test_what_a_header_claims_takes_no_memory(tmp_path: Path) -> None:
    raw = HEADER.encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw)
    with pytest.raises(ds.InputError, match="cannot read"):
        read_image(tmp_path / "a.npy", (3, 4, 5))
    PIL.Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")  # Pillow warns of a bomb
    with pytest.raises(ds.InputError, match="is 10000 pixels wide"):
        read_image(tmp_path / "a.png", (3, 4, 5))


def test_arrays_in_another_order_are_refused_by_their_own_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "last.npy", PIXELS.transpose(1, 2, 0))
    with pytest.raises(ds.InputError, match=r"has shape \[4, 5, 3\]; .*transpose\(2, 0, 1\)"):
        read_image(tmp_path / "last.npy", (3, 4, 5))
    np.save(tmp_path / "many.npy", PIXELS[None])
    with pytest.raises(ds.InputError, match=r"has shape \[1, 3, 4, 5\]; .*one image a file"):
        read_image(tmp_path / "many.npy", (3, 4, 5))


@pytest.mark.parametrize("format", ["EPS", "ICO", "PCX", "TGA", "SGI"])
def test_only_known_formats_are_decoded(tmp_path: Path, format: str) -> None:
    """Pillow would start Ghostscript for EPS."""
    PIL.Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "a.png", format)
    with pytest.raises(ds.InputError, match="expected a picture of 8 or 16 bits"):
        read_image(tmp_path / "a.png", (3, 4, 5))


@pytest.mark.parametrize("raw", [b"PK\x03\x04", b"\x80\x04.", b"\x93NUMPY\x01\x00\x02\x00(\n", b""])
def test_other_bytes_in_an_npy_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(raw)
    with pytest.raises(ds.InputError, match="expected an NPY file"):
        read_image(tmp_path / "a.npy", (3, 4, 5))


torch = pytest.importorskip("torch")
UNIT = PIXELS.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(
    "image", [PIXELS, UNIT, np.asfortranarray(UNIT), torch.tensor(UNIT), torch.tensor(PIXELS), memoryview(UNIT)]
)
def test_what_numpy_reads_as_an_image_is_one(image: Any) -> None:
    assert np.array_equal(checked_image(image, (3, 4, 5)), UNIT)


@pytest.mark.parametrize(
    ("image", "fix"),
    [
        (PIXELS[None], r"shape \[1, 3, 4, 5\]; .*: this is a batch, pass image\[0\]$"),
        (UNIT[None].repeat(2, 0), "this is a batch, pass each with certify_many$"),
        (UNIT.transpose(1, 2, 0)[None], r"pass image\[0\], with the channels first$"),
        (UNIT.transpose(1, 2, 0), r"pass image.transpose\(2, 0, 1\)$"),
        (PIL.Image.fromarray(PIXELS.transpose(1, 2, 0)), r"pass image.transpose\(2, 0, 1\)$"),
        (PIXELS[0], r"shape \[4, 5\]; expected \[3, 4, 5\] \(channels first\)$"),
        (PIXELS.astype(np.float32), "ranges from . to 2..; .*: pass image / 255$"),
        (PIXELS.astype(np.float64), "pass image / 255$"),
        (UNIT * 2 - 1, r"ranges from -.* to .*; .*: if these are from -1 to 1, pass \(image \+ 1\) / 2$"),
        ((UNIT - 0.45) / 0.22, "unnormalised: normalisation is inside the networks$"),
        (UNIT * 1.5, "unnormalised"),
        (UNIT.astype(np.float64), r"dtype float64; .*: pass image.astype\(np.float32\)$"),
        (UNIT.astype(np.float16), r"dtype float16; .*: pass image.astype\(np.float32\)$"),
        (PIXELS.astype(np.int64), r"dtype int64; .*: pass image.astype\(np.uint8\)$"),
        (PIXELS.astype(np.uint16) * 256, "dtype uint16; expected float32 in .0, 1. or uint8$"),
        (PIXELS > 3, "dtype bool; expected"),
        (UNIT.astype(np.complex64), "dtype complex64; expected"),
        (UNIT * np.float32("nan"), "image holds NaN or infinite values"),
        (torch.tensor(UNIT, requires_grad=True), r"image is a Tensor that NumPy cannot read .*detach\(\)"),
        (torch.tensor(UNIT, dtype=torch.bfloat16), "image is a Tensor that NumPy cannot read"),
        (torch.empty(3, 4, 5, device="meta"), "image is a Tensor that NumPy cannot read"),
        (None, "image is a NoneType; expected an array"),
        (iter([1]), "image is a list_iterator; expected an array"),
        ("image.png", "shape"),
    ],
)
def test_other_arrays_are_refused_with_what_mends_them(image: Any, fix: str) -> None:
    with pytest.raises(ds.InputError, match=fix) as refused:
        checked_image(image, (3, 4, 5))
    assert "\n" not in str(refused.value)


def test_a_grey_picture_without_its_channel() -> None:
    with pytest.raises(ds.InputError, match=r"pass image\[None\]$"):
        checked_image(UNIT[0], (1, 4, 5))
