"""Pictures that are decoded when they are asked for: sizes, pixels and random parts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_sets import picture
from PIL import Image

from dualsmooth.runtime.datasets.image_files import ImageFiles, random_box

RNG = np.random.default_rng(0)


def test_pixels_are_those_of_torchvisions_transforms(tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    noise = RNG.integers(0, 256, (301, 417, 3), np.uint8)
    for pixels in (noise, noise.transpose(1, 0, 2)):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        files = ImageFiles(np.array([os.fsencode(tmp_path / "a.png")]), 224, 256)
        whole = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
        expected = np.asarray(whole(Image.fromarray(pixels))).transpose(2, 0, 1)
        np.testing.assert_array_equal(files[0], expected)


def test_random_crops_stay_inside_and_have_their_area_and_shape(tmp_path: Path) -> None:
    boxes = np.array([random_box((100, 60), 0.3, np.random.default_rng(seed)) for seed in range(300)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 100
    assert boxes[:, 3].max() <= 60
    assert (width * height / 6000).min() > 0.28
    assert (width * height / 6000).std() > 0.1
    assert 0.7 < (width / height).min() < 0.9 < 1.2 < (width / height).max() < 1.4
    left, top, right, bottom = random_box((400, 10), 0.9, np.random.default_rng(0))
    assert (right - left, bottom - top) == (pytest.approx(40 / 3), 10)
    picture(tmp_path / "a.png", 50, 40, 9)
    files = ImageFiles(np.array([os.fsencode(tmp_path / "a.png")]), 16, 16)
    assert files.decode(str(tmp_path / "a.png"), np.random.default_rng(0), 0.3).shape == (3, 16, 16)
