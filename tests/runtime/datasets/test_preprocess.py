"""Pictures of any size to the network's input: the pixels of the field's own transforms, and of a reference of ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dualsmooth.runtime.bundle.preprocessing import RESAMPLING, Preprocessing
from dualsmooth.runtime.datasets.preprocess import preprocessed, preprocessed_array
from dualsmooth.runtime.errors import InputError

Pixels = npt.NDArray[np.uint8]
RNG = np.random.default_rng(0)
SIDES = ((301, 417), (417, 301), (40, 300), (90, 90))
PHOTOS = [RNG.integers(0, 256, (*sides, 3), np.uint8) for sides in SIDES]


def picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels)


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic", "lanczos", "box", "nearest"])
def test_pixels_are_those_of_torchvisions_transforms(resampling: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode[resampling.upper()]
    for pixels in PHOTOS:
        for resize, size in ((64, (48, 56)), ((61, 70), (48, 56)), ((48, 56), (48, 56))):
            whole = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(size)])
            expected = np.asarray(whole(picture(pixels))).transpose(2, 0, 1)
            found = preprocessed(picture(pixels), Preprocessing((3, *size), resize, resampling))
            np.testing.assert_array_equal(found, expected)


def test_pixels_are_those_of_a_published_networks_own_transforms() -> None:
    """torchvision's weights, and timm's configuration, state what their networks expect."""
    models = pytest.importorskip("torchvision.models")
    theirs = models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    for pixels in PHOTOS:
        (side,), (resize,) = theirs.crop_size, theirs.resize_size
        how = Preprocessing((3, side, side), resize, theirs.interpolation.value)
        tensor = theirs(picture(pixels)).numpy()
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (theirs.mean, theirs.std))
        np.testing.assert_allclose(preprocessed(picture(pixels), how) / 255, tensor * std + mean, atol=1e-5)


def test_pixels_are_those_of_a_timm_networks_own_transforms() -> None:
    """As examples/export_timm.py reads them."""
    data = pytest.importorskip("timm.data")
    for interpolation, crop_pct in (("bicubic", 0.95), ("bilinear", 0.875), ("bicubic", 1.0)):
        size = {"input_size": (3, 56, 56), "crop_pct": crop_pct, "interpolation": interpolation, "crop_mode": "center"}
        theirs = data.create_transform(**size, mean=(0, 0, 0), std=(1, 1, 1))
        how = Preprocessing((3, 56, 56), math.floor(56 / crop_pct), interpolation)
        for pixels in PHOTOS:
            expected = theirs(picture(pixels)).numpy()
            np.testing.assert_allclose(preprocessed(picture(pixels), how) / 255, expected, atol=1e-6)


def reference(pixels: Pixels, size: int) -> npt.NDArray[np.float64]:
    """Bilinear resampling with antialiasing of a grey picture [H,W] to [size,size], in exact arithmetic: each pixel is
    the mean of those under a triangle as wide as two of the larger pixels."""

    def weights(old: int) -> npt.NDArray[np.float64]:
        scale = old / size
        reach = max(1.0, scale)
        places = (np.arange(size)[:, None] + 0.5) * scale - (np.arange(old) + 0.5)
        found = np.maximum(0.0, 1 - np.abs(places) / reach)
        return found / found.sum(axis=1, keepdims=True)

    return weights(pixels.shape[0]) @ pixels @ weights(pixels.shape[1]).T


@pytest.mark.parametrize("sides", [(64, 64), (37, 53), (12, 80), (7, 9)])
def test_resampling_is_a_mean_under_a_triangle(sides: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, sides, np.uint8)
    found = preprocessed(picture(pixels), Preprocessing((1, 20, 20), (20, 20)))
    assert np.abs(found[0] - reference(pixels, 20)).max() <= 1.0


def test_half_the_size_by_boxes_is_exact_in_whole_numbers() -> None:
    """The mean of two neighbours along each row, rounded, then along each column, rounded."""
    pixels = RNG.integers(0, 256, (12, 16), np.uint8)
    found = preprocessed(picture(pixels), Preprocessing((1, 6, 8), 6, "box"))[0]
    rows = (pixels[:, ::2].astype(int) + pixels[:, 1::2] + 1) // 2
    np.testing.assert_array_equal(found, (rows[::2] + rows[1::2] + 1) // 2)


@pytest.mark.parametrize("resampling", RESAMPLING)
def test_one_colour_stays_that_colour(resampling: str) -> None:
    for level in (0, 1, 127, 254, 255):
        found = preprocessed(picture(np.full((31, 77), level, np.uint8)), Preprocessing((1, 9, 9), 12, resampling))
        assert (found == level).all()


def test_the_middle_is_cut_out() -> None:
    pixels = np.zeros((5, 9), np.uint8)
    pixels[1:4, 2:7] = 1 + np.arange(15).reshape(3, 5)
    found = preprocessed(picture(pixels), Preprocessing((1, 3, 5), 5, "nearest"))
    np.testing.assert_array_equal(found[0], 1 + np.arange(15).reshape(3, 5))


def test_what_has_the_size_is_taken_as_it_is() -> None:
    how = Preprocessing((3, 8, 10), 64)
    for pixels in PHOTOS:
        once = preprocessed(picture(pixels), how)
        np.testing.assert_array_equal(preprocessed_array(once, how), once)
        np.testing.assert_array_equal(preprocessed(picture(once.transpose(1, 2, 0)), how), once)


def test_arrays_are_taken_in_every_plain_order() -> None:
    colour, grey = Preprocessing((3, 8, 10), 12), Preprocessing((1, 8, 10), 12)
    for pixels in PHOTOS:
        expected = preprocessed(picture(pixels), colour)
        np.testing.assert_array_equal(preprocessed_array(pixels, colour), expected)
        np.testing.assert_array_equal(preprocessed_array(pixels.transpose(2, 0, 1), colour), expected)
        one = np.ascontiguousarray(pixels[:, :, 0])
        expected = preprocessed(picture(one), grey)
        for order in (one, one[None], one[:, :, None]):
            np.testing.assert_array_equal(preprocessed_array(order, grey), expected)
            np.testing.assert_array_equal(preprocessed_array(order, colour), expected.repeat(3, axis=0))
        luma = np.asarray(picture(pixels).resize((12, 12)).convert("L"))
        assert preprocessed_array(pixels, grey).shape == (1, 8, 10), luma.shape


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 20, 20), np.float32),
        np.zeros((3, 20, 20), np.int64),
        np.zeros((20, 20, 20), np.uint8),
        np.zeros((3, 20, 3), np.uint8),
        np.zeros((1, 3, 20, 20), np.uint8),
        np.zeros((4, 20, 20), np.uint8),
        np.zeros((3, 0, 20), np.uint8),
        np.zeros(20, np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_arrays_that_are_not_plain_are_refused(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"expected the network's input \[3, 8, 10\], or a picture of any size"):
        preprocessed_array(pixels, Preprocessing((3, 8, 10), 12))


def test_strips_that_would_become_huge_are_refused() -> None:
    with pytest.raises(
        InputError, match="1 pixels wide and 2000 high would be 256 x 512000 with its shorter side to 256"
    ):
        preprocessed(picture(np.zeros((2000, 1), np.uint8)), Preprocessing((3, 224, 224), 256))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Preprocessing((3, 224, 224), 256), "shorter side to 256 pixels (bilinear), the middle 224 x 224, rgb"),
        (Preprocessing((1, 28, 30), (28, 30), "box"), "to 28 x 30 pixels (box), grey"),
        (Preprocessing((1, 28, 30), (32, 40), "box"), "to 32 x 40 pixels (box), the middle 28 x 30, grey"),
    ],
)
def test_it_says_what_it_does(how: Preprocessing, words: str) -> None:
    assert how.words == words
    assert math.prod(preprocessed(picture(PHOTOS[0]), how).shape) == math.prod(how.shape)
