"""Datasets: small files in the published layouts, and damaged ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from shipped import fashion_mnist, idx

from dualsmooth.runtime.datasets.dataset import fashion_mnist_folder, load_dataset
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


@pytest.mark.parametrize("color", [False, True])
def test_npz(tmp_path: Path, color: bool) -> None:
    images = np.stack([IMAGES] * 3, axis=-1) if color else IMAGES
    np.savez(tmp_path / "d.npz", x=images, y=LABELS, classes=np.array(["a", "b"]))
    data = load_dataset(f"npz:{tmp_path / 'd.npz'}")
    assert data.images.shape == ((3, 3, 4, 5) if color else (3, 1, 4, 5))
    assert np.array_equal(data.images[:, -1], IMAGES)
    assert data.classes == ("a", "b")


def refused(name: str, **options: object) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    refused("mnist")
    refused("npz:")
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


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": IMAGES},
        {"y": LABELS},
        {"x": IMAGES[0], "y": LABELS},
        {"x": IMAGES, "y": LABELS[:2]},
        {"x": IMAGES, "y": np.array([1, "a", None], object)},
    ],
)
def test_unusable_npz_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    refused(f"npz:{tmp_path / 'd.npz'}")


def test_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    refused(f"npz:{path}")
    refused(f"npz:{tmp_path}")
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (9, 8, 8)).astype(np.uint8), y=np.arange(9))
    whole = path.read_bytes()
    for cut in (b"", b"junk", whole[:100], whole[:-30], whole[:90] + b"\xff" * 60 + whole[150:]):
        path.write_bytes(cut)
        refused(f"npz:{path}")
    np.save(tmp_path / "single.npy", IMAGES)
    (tmp_path / "single.npy").rename(path)
    refused(f"npz:{path}")
