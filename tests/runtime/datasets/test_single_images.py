"""Images come in as they are: right shape and values, or a clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import dualsmooth as ds
from dualsmooth.runtime.datasets.single_images import checked_image, read_image, read_picture, several

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)


def test_png_rgb_is_channels_first(tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (3, 4, 5)), PIXELS)


def test_png_grey_and_palette_are_converted(tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (1, 4, 5)), PIXELS[:1])
    assert read_image(tmp_path / "a.png", (3, 4, 5)).shape == (3, 4, 5)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_bytes_are_read_as_the_file_is(tmp_path: Path, format: str) -> None:
    PIL.Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "a", format)
    data = (tmp_path / "a").read_bytes()
    assert np.array_equal(read_picture(data, (3, 4, 5)), PIXELS)
    with pytest.raises(ds.InputError, match="upload is 5 pixels wide"):
        read_picture(data, (3, 9, 9))
    with pytest.raises(ds.InputError, match=r"cannot read upload \(cannot identify image file upload\)"):
        read_picture(data[1:], (3, 4, 5))


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
    np.save(tmp_path / "last.npy", PIXELS[:, :3].transpose(1, 2, 0))
    with pytest.raises(ds.InputError, match=r"has shape \[3, 5, 3\]; .*transpose\(2, 0, 1\)"):
        read_image(tmp_path / "last.npy", (3, 3, 5))
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
LAST = np.ascontiguousarray(PIXELS.transpose(1, 2, 0))


class OnlyDLPack:
    """As tensors of libraries that know nothing of NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


@pytest.mark.parametrize(
    "image",
    [
        *(PIXELS, UNIT, np.asfortranarray(UNIT), torch.tensor(UNIT), torch.tensor(PIXELS), memoryview(UNIT)),
        *(LAST, LAST.astype(np.float32) / np.float32(255), torch.tensor(LAST)),
        *(PIL.Image.fromarray(LAST), OnlyDLPack(PIXELS), OnlyDLPack(LAST)),
    ],
)
def test_what_is_plainly_an_image_is_one(image: Any) -> None:
    found = checked_image(image, (3, 4, 5))
    assert np.array_equal(found, UNIT)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    "image",
    [
        *(PIXELS[:1], PIXELS[0], PIXELS[0][..., None], UNIT[0], torch.tensor(PIXELS[0])),
        *(PIL.Image.fromarray(PIXELS[0]), PIL.Image.fromarray(PIXELS[0]).convert("RGB")),
    ],
)
def test_one_channel_may_be_left_out_or_come_last(image: Any) -> None:
    assert np.array_equal(checked_image(image, (1, 4, 5)), UNIT[:1])


def test_files_are_read_as_their_pictures_and_arrays_are(tmp_path: Path) -> None:
    PIL.Image.fromarray(LAST).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", PIXELS)
    np.save(tmp_path / "last.npy", LAST)
    for name in ("a.png", "a.npy", "last.npy"):
        for path in (tmp_path / name, str(tmp_path / name)):
            assert np.array_equal(checked_image(path, (3, 4, 5)), UNIT)
    with PIL.Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(checked_image(opened, (3, 4, 5)), UNIT)


def test_an_array_of_the_shape_that_is_asked_for_has_its_channels_first() -> None:
    """Of three axes as long as each other no order can be told: it is the one that is documented."""
    cube = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(checked_image(cube, (3, 3, 3)) * 255, cube)


@pytest.mark.parametrize(
    ("image", "fix"),
    [
        (PIXELS[None], r"shape \[1, 3, 4, 5\]; .*: this is a batch, pass image\[0\]$"),
        (UNIT[None].repeat(2, 0), "this is a batch, pass each with certify_many$"),
        (UNIT.transpose(1, 2, 0)[None], r"pass image\[0\], with the channels first$"),
        (UNIT.transpose(2, 1, 0), r"shape \[5, 4, 3\]; expected \[3, 4, 5\] \(channels first\)$"),
        (PIL.Image.fromarray(LAST[:3]), "the picture is 5 pixels wide and 3 high; expected 5 wide and 4 high"),
        (PIL.Image.fromarray(LAST).convert("RGBA").rotate(45), "the picture has transparent pixels"),
        (PIL.Image.new("F", (5, 4)), "the picture has floating-point pixels"),
        (UNIT.tolist(), r"image is a list; expected .*: pass np.array\(image, np.float32\)"),
        ((PIXELS, PIXELS), "image is a tuple; .* or several images to certify_many$"),
        (b"\x89PNG", "image is a bytes; expected"),
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
        (PIXELS > 3, r"dtype bool; expected .*: pass image.astype\(np.float32\)$"),
        (UNIT.astype(np.complex64), "dtype complex64; expected"),
        (UNIT * np.float32("nan"), "image holds NaN or infinite values"),
        (torch.tensor(UNIT, requires_grad=True), r"image is a Tensor that NumPy cannot read .*detach\(\)"),
        (torch.tensor(UNIT, dtype=torch.bfloat16), "image is a Tensor that NumPy cannot read"),
        (torch.empty(3, 4, 5, device="meta"), "image is a Tensor that NumPy cannot read"),
        (None, "image is a NoneType; expected an array"),
        (iter([1]), "image is a list_iterator; expected an array"),
        (7, "image is a int; expected an array"),
        ("no-such.png", "image no-such.png does not exist; expected a PNG, JPEG or NPY file$"),
        (Path(__file__).parent, "is a folder; expected a PNG"),
    ],
)
def test_other_arrays_are_refused_with_what_mends_them(image: Any, fix: str) -> None:
    with pytest.raises(ds.InputError, match=fix) as refused:
        checked_image(image, (3, 4, 5))
    assert "\n" not in str(refused.value)


def test_where_the_channels_are_must_be_plain() -> None:
    """With three channels and a side of three, [H,W,C] looks as [H,C,W] or [C,H,W] do."""
    for seen, shape in (((4, 3, 3), (3, 4, 3)), ((3, 4, 3), (3, 3, 4))):
        with pytest.raises(ds.InputError, match=r"which axis holds the channels is not plain: if it is the last, pass"):
            checked_image(np.zeros(seen, np.float32), shape)


@pytest.mark.parametrize("images", ["photos", Path("photos"), PIL.Image.fromarray(LAST), 7, None])
def test_one_image_is_not_several(images: Any) -> None:
    with pytest.raises(ds.InputError, match=r"^images is .*; expected (several|an iterable)"):
        several(images)


def test_many_grey_pictures_are_a_batch() -> None:
    with pytest.raises(ds.InputError, match=r"shape \[3, 4, 5\]; expected \[1, 4, 5\].*a batch, pass each with"):
        checked_image(UNIT, (1, 4, 5))
