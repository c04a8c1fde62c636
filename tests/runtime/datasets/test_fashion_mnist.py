"""Fashion-MNIST: IDX files in the published layout, and damaged ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from shipped import fashion_mnist, idx

from dualsmooth.runtime.datasets.fashion_mnist import fashion_mnist_folder
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9], np.uint8)


def folder(path: Path, *, images: bytes = idx(IMAGES), labels: bytes = idx(LABELS), zipped: bool = True) -> Path:
    for name, data in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        (path / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folder(tmp_path: Path, zipped: bool) -> None:
    data = load_dataset("fashion-mnist", data_dir=folder(tmp_path, zipped=zipped))
    assert data.images.shape == (3, 1, 4, 5)
    assert np.array_equal(data.images[:, 0], IMAGES)
    assert data.labels.tolist() == [7, 0, 9]
    assert data.labels.dtype == np.int64
    assert len(data) == 3
    assert len(data.classes) == 10


def test_the_folder_of_data_sets_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALSMOOTH_DATA", str(fashion_mnist(tmp_path)))
    assert len(load_dataset("fashion-mnist")) == 200
    monkeypatch.setenv("DUALSMOOTH_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"elsewhere/fashion-mnist; fetch it with `make data` and set DUALSMOOTH_DATA"):
        load_dataset("fashion-mnist")


@pytest.mark.skipif(not fashion_mnist_folder().is_dir(), reason="no Fashion-MNIST here: `make data`")
def test_the_real_fashion_mnist() -> None:
    data = load_dataset("fashion-mnist")
    assert data.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.labels).tolist() == [1000] * 10


def refused(name: str, **options: object) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    refused("fashion-mnist", split="val", data_dir=tmp_path)
    refused("fashion-mnist", data_dir=tmp_path)
    refused("fashion-mnist", split="train", data_dir=folder(tmp_path))


@pytest.mark.parametrize(
    "images",
    [
        b"",
        idx(IMAGES)[:3],
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"\0",
        idx(LABELS),
        b"\0\0\x0d" + idx(IMAGES)[3:],
        bytes((0, 0, 8, 3)) + b"\xff" * 12,
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, images: bytes) -> None:
    refused("fashion-mnist", data_dir=folder(tmp_path, images=images))


def test_idx_counts_must_agree(tmp_path: Path) -> None:
    refused("fashion-mnist", data_dir=folder(tmp_path, labels=idx(LABELS[:2])))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"junk" + b, lambda b: b[:20] + b"\xff" * 9])
def test_damaged_gzip_files_are_refused(tmp_path: Path, damage: object) -> None:
    path = folder(tmp_path) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    refused("fashion-mnist", data_dir=tmp_path)
