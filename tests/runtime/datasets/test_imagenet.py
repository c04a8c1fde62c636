"""ImageNet in torchvision's layout, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import picture

from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError


def refused(name: str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def imagenet(root: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(("n01440764", "n02102040")):
            for number in range(count):
                picture(root / split / wnid / f"{wnid}_{number}.JPEG", 320 - 40 * number, 260, 50 + 100 * label)
    return root


def test_imagenet_in_torchvisions_layout(tmp_path: Path) -> None:
    train = load_dataset("imagenet", split="train", data_dir=imagenet(tmp_path))
    assert train.images.shape == (6, 3, 224, 224)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.classes == ("n01440764", "n02102040")
    test = load_dataset("imagenet", data_dir=tmp_path)
    assert len(test) == len(test.images) == 4
    image = test.images[2]
    assert image.shape == (3, 224, 224)
    assert image.dtype == np.uint8
    assert abs(int(image[1, 100, 100]) - 150) < 4
    (tmp_path / "val" / "n99").mkdir()
    assert "n99" in refused("imagenet", data_dir=tmp_path)
    refused("imagenet", data_dir=tmp_path / "val")
    refused("imagenet")


def test_pictures_are_decoded_only_when_asked_for(tmp_path: Path) -> None:
    data = load_dataset("imagenet", split="train", data_dir=imagenet(tmp_path))
    (tmp_path / "train" / "n01440764" / "n01440764_1.JPEG").write_bytes(b"no picture")
    assert data.images[0].shape == (3, 224, 224)
    some = data.images[np.array([5, 1, 0])]
    assert some.shape == (3, 3, 224, 224)
    np.testing.assert_array_equal(some[2], data.images[0])
    with pytest.raises(InputError, match=r"cannot read .*n01440764_1\.JPEG"):
        some[1]
    with pytest.raises(InputError, match="cannot read"):
        np.asarray(some)
    np.testing.assert_array_equal(np.asarray(data.images[3:5])[1], data.images[4])
