"""NPZ files as other people save them: read where their meaning is certain, refused with what was seen where not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.datasets.npz import read_npz
from dualsmooth.runtime.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
GREY = X[..., 0]
Y = np.array([2, 0, 1, 1, 0, 2])
NAMES = ("ant", "bee", "cow")
WORDS = np.array(NAMES)[Y]
ONE_HOT = np.eye(3)[Y]

READ: dict[str, tuple[dict[str, object], np.ndarray, tuple[str, ...]]] = {
    "plain": ({"x": X, "y": Y}, X, ()),
    "grey": ({"x": GREY, "y": Y}, GREY[..., None], ()),
    "grey with its channel": ({"x": GREY[..., None], "y": Y}, GREY[..., None], ()),
    "keras, test": ({"x_train": X[:2], "y_train": Y[:2], "x_test": X, "y_test": Y}, X, ()),
    "medmnist": ({"train_images": X[:1], "train_labels": Y[:1, None], "val_images": X[:2], "val_labels": Y[:2, None],
                  "test_images": X, "test_labels": Y[:, None]}, X, ()),
    "capitals": ({"X": X, "Y": Y}, X, ()),
    "images and labels": ({"images": X, "labels": Y}, X, ()),
    "data and target": ({"data": X, "target": Y, "target_names": np.array(NAMES)}, X, NAMES),
    "savez of two": ({"arr_0": X, "arr_1": Y}, X, ()),
    "int64 pixels": ({"x": X.astype(np.int64), "y": Y}, X, ()),
    "float levels": ({"x": X.astype(np.float32), "y": Y}, X, ()),
    "floats of 0 to 1": ({"x": X.astype(np.float32) / np.float32(255), "y": Y}, X, ()),
    "doubles of 0 to 1": ({"x": X / 255, "y": Y}, X, ()),
    "halves of 0 to 1": ({"x": (X / 255).astype(np.float16), "y": Y}, X, ()),
    "to_tensor of torchvision": ({"x": torch.from_numpy(X).float().div(255).numpy(), "y": Y}, X, ()),
    "big endian": ({"x": X.astype(">i4"), "y": Y.astype(">i8")}, X, ()),
    "fortran order": ({"x": np.asfortranarray(X), "y": Y}, X, ()),
    "labels in a column": ({"x": X, "y": Y[:, None]}, X, ()),
    "uint8 labels": ({"x": X, "y": Y.astype(np.uint8)}, X, ()),
    "float labels": ({"x": X, "y": Y.astype(np.float32)}, X, ()),
    "one-hot": ({"x": X, "y": ONE_HOT}, X, ()),
    "one-hot of bool": ({"x": X, "y": ONE_HOT.astype(bool)}, X, ()),
    "names": ({"x": X, "y": WORDS}, X, NAMES),
    "names as bytes": ({"x": X, "y": WORDS.astype("S")}, X, NAMES),
    "names and their order": ({"x": X, "y": WORDS, "classes": np.array(NAMES)}, X, NAMES),
    "classes as bytes": ({"x": X, "y": Y, "classes": np.array(NAMES, "S")}, X, NAMES),
    "classes as numbers": ({"x": X, "y": Y, "classes": np.array([4, 5, 6])}, X, ("4", "5", "6")),
    "many channels": ({"x": RNG.integers(0, 256, (6, 9, 9, 5), np.uint8), "y": Y}, np.empty(0), ()),
}  # fmt: skip

NCHW = X.transpose(0, 3, 1, 2)
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "channels first by another name": (
        {"train_images": X, "test_images": NCHW, "test_labels": Y},
        r"test_images is uint8 \[6, 3, 5, 4\]",
    ),
    "channels first": ({"x": NCHW, "y": Y}, r"x is uint8 \[6, 3, 5, 4\]; .*x.transpose\(0, 2, 3, 1\)"),
    "grey, channels first": ({"x": GREY[:, None], "y": Y}, r"\[6, 1, 5, 4\]; .*channels first"),
    "which axis": ({"x": np.zeros((6, 5, 5, 5), np.uint8), "y": Y}, r"x is uint8 \[6, 5, 5, 5\]; .*move the axes"),
    "flattened": ({"x": X.reshape(6, -1), "y": Y}, r"x is uint8 \[6, 60\]; .*reshape"),
    "images last": ({"x": X.transpose(1, 2, 3, 0), "y": Y}, r"uint8 \[5, 4, 3, 6\] as images but int64 \[6\]"),
    "normalised": ({"x": (X / 255).astype(np.float32) * 2 - 1, "y": Y}, "x is float32 with values from -1 to 1"),
    "off the levels": ({"x": np.full(X.shape, 0.3), "y": Y}, "values from 0.3 to 0.3, which are no 8-bit levels"),
    "float of 0 to 255, resized": ({"x": X + 0.25, "y": Y}, "no 8-bit levels"),
    "16 bits": ({"x": X.astype(np.uint16) * 257, "y": Y}, "uint16 .* to 65"),
    "nan": ({"x": np.full(X.shape, np.nan), "y": Y}, "from nan to nan"),
    "bits": ({"x": (X > 99).astype(np.uint8), "y": Y}, "from 0 to 1, which"),
    "bool": ({"x": X > 99, "y": Y}, "x is bool"),
    "complex": ({"x": X + 0j, "y": Y}, "x is complex128"),
    "strings": ({"x": WORDS, "y": Y}, "x is <U3"),
    "other sizes": ({"x": np.array([X[0], X[1, :2]], object), "y": Y}, "x is an array of Python objects"),
    "object labels": ({"x": X, "y": WORDS.astype(object)}, "y is an array of Python objects"),
    "soft labels": ({"x": X, "y": ONE_HOT * 0.9 + 0.05}, r"y is float64 \[6, 3\]"),
    "several labels": ({"x": X, "y": np.ones((6, 3), int)}, r"y is int64 \[6, 3\]"),
    "labels with fractions": ({"x": X, "y": Y + 0.5}, r"y is float64 \[6\]"),
    "too few labels": ({"x": X, "y": Y[:5]}, r"uint8 \[6, 5, 4, 3\] as images but int64 \[5\] as labels"),
    "a name too many": ({"x": X, "y": WORDS, "classes": np.array(NAMES[:2])}, "y names 'cow'"),
    "no labels": ({"x": X}, r"holds x: for y \(test\) none"),
    "no images": ({"y": Y}, r"holds y: for x \(test\) none"),
    "training images only": ({"x_train": X, "y_train": Y}, r"for x \(test\) none that is known"),
    "two of them": ({"x": X, "images": X, "y": Y}, "x and images, of which one is meant"),
    "nothing": ({"x": X[:0], "y": Y[:0]}, "holds no images"),
    "classes are a count": ({"x": X, "y": Y, "classes": 3}, r"classes is int64 \[\]"),
}


@pytest.mark.parametrize("kind", READ)
def test_arrays_of_certain_meaning_are_read(kind: str, tmp_path: Path) -> None:
    arrays, expected, names = READ[kind]
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    images, labels, classes = read_npz(tmp_path / "d.npz", "test")
    if expected.size:
        np.testing.assert_array_equal(images, expected.transpose(0, 3, 1, 2))
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert labels.tolist() == Y.tolist()
    assert classes == names


@pytest.mark.parametrize("kind", REFUSED)
def test_other_arrays_are_refused_with_what_was_seen(kind: str, tmp_path: Path) -> None:
    arrays, message = REFUSED[kind]
    np.savez(tmp_path / "d.npz", **arrays, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as caught:
        read_npz(tmp_path / "d.npz", "test")
    assert "\n" not in str(caught.value)


def test_the_split_that_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=X[:2], y_train=Y[:2], x_test=X[2:], y_test=Y[2:])
    assert read_npz(tmp_path / "d.npz", "train")[1].tolist() == [2, 0]
    assert read_npz(tmp_path / "d.npz", "test")[1].tolist() == [1, 1, 0, 2]


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="is a PyTorch checkpoint"):
        read_npz(path, "test")
    torch.save({"x": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="is a Python pickle"):
        read_npz(path, "test")
    scipy.io.savemat(tmp_path / "d.mat", {"X": X, "y": Y})
    with pytest.raises(InputError, match=r"is a MATLAB file \(scipy.io.loadmat reads it\)"):
        read_npz(tmp_path / "d.mat", "test")
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(InputError, match=r"is a NumPy array \(without labels\)"):
        read_npz(path, "test")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match="a Git LFS pointer, not the file; fetch it: git lfs pull"):
        read_npz(path, "test")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    with pytest.raises(InputError, match="none that is known"):
        read_npz(path, "test")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=Y)
    path.write_bytes(buffer.getvalue()[:200])
    with pytest.raises(InputError, match="cannot read"):
        read_npz(path, "test")


@pytest.mark.parametrize("color", [False, True])
def test_npz(tmp_path: Path, color: bool) -> None:
    images = np.stack([GREY[:3]] * 3, axis=-1) if color else GREY[:3]
    np.savez(tmp_path / "d.npz", x=images, y=Y[:3], classes=np.array(["a", "b"]))
    data = load_dataset(f"npz:{tmp_path / 'd.npz'}")
    assert data.images.shape == ((3, 3, 5, 4) if color else (3, 1, 5, 4))
    assert np.array_equal(data.images[:, -1], GREY[:3])
    assert data.classes == ("a", "b")


def refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": GREY[:3]},
        {"y": Y[:3]},
        {"x": GREY[0], "y": Y[:3]},
        {"x": GREY[:3], "y": Y[:2]},
        {"x": GREY[:3], "y": np.array([1, "a", None], object)},
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
    np.save(tmp_path / "single.npy", GREY[:3])
    (tmp_path / "single.npy").rename(path)
    refused(f"npz:{path}")
