"""Small data sets, written as their publishers and users write them: one of each format, and the parts they are of."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from shipped import idx

LABELS = (1, 0, 1, 0, 0)
"""Of the test split of each sample; the train split has them twice."""


@dataclass(frozen=True)
class Sample:
    """Where a data set was written, and what its test split holds: images [5,C,H,W], to within `slack`."""

    place: Path
    images: np.ndarray
    labels: tuple[int, ...]
    slack: int = 0
    size: str = ""


def named(form: str, place: Path, size: str = "") -> tuple[str, Path | None]:
    """The name and the folder of --data-dir that stand for a data set of this form at `place`."""
    kind, colon, _ = form.partition(":")
    return (f"{kind}:{place}{size}", None) if colon else (kind, place)


def fashion_mnist(root: Path) -> Sample:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    labels = np.array(LABELS, np.uint8)
    for prefix, times in (("t10k", 1), ("train", 2)):
        for stem, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            (root / f"{prefix}-{stem}.gz").write_bytes(gzip.compress(idx(np.concatenate([array] * times))))
    return Sample(root, images[:, None], LABELS)


def cifar10(root: Path) -> Sample:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(python2_batch(images, list(LABELS)))
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(python2_batch(images[:2], list(LABELS[:2])))
    return Sample(root, images, LABELS)


def imagenet(root: Path) -> Sample:
    tones = _class_folders(root, ("n01440764", "n02102040"), "JPEG", (320, 260))
    return Sample(root, _plain(tones, 224), tuple(sorted(LABELS)), slack=3)


def imagefolder(root: Path) -> Sample:
    tones = _class_folders(root, ("cat", "dog"), "png", (21, 30))
    return Sample(root, _plain(tones, 16), tuple(sorted(LABELS)), size="@16")


def npz(root: Path) -> Sample:
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    y, classes = np.array(LABELS), np.array(["left", "right"])
    twice = {"x_train": np.concatenate([x, x]), "y_train": np.concatenate([y, y])}
    np.savez_compressed(root / "d.npz", x_test=x, y_test=y, classes=classes, **twice)
    return Sample(root / "d.npz", x.transpose(0, 3, 1, 2), LABELS)


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "imagenet": imagenet,
    "imagefolder:PATH": imagefolder,
    "npz:PATH": npz,
}
"""What writes a sample into an empty folder, by the form of its name."""


def _class_folders(root: Path, names: tuple[str, str], suffix: str, size: tuple[int, int]) -> list[int]:
    """`train` and `val` with a folder for each class; the tone of each picture of `val`, in the order of the labels."""
    tones = []
    for split, times in (("val", 1), ("train", 2)):
        for label, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for number in range(times * LABELS.count(label)):
                tone = 20 + 100 * label + 10 * number
                Image.new("RGB", size, (tone, tone, tone)).save(root / split / name / f"{number}.{suffix}")
                tones += [tone] if split == "val" else []
    return tones


def _plain(tones: list[int], size: int) -> np.ndarray:
    return np.stack([np.full((3, size, size), tone, np.uint8) for tone in tones])


def text(value: bytes) -> bytes:
    """A string as Python 2 pickles it."""
    return b"U" + bytes([len(value)]) + value


def python2_batch(images: np.ndarray, labels: list[int], *, names: str = "numpy.core.multiarray") -> bytes:
    """The bytes of a CIFAR-10 batch as its authors' Python 2 wrote them: protocol 2, byte strings, the old NumPy."""
    raw = images.reshape(len(images), -1).tobytes()
    array = (
        f"c{names}\n_reconstruct\ncnumpy\nndarray\n".encode() + b"K\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01J" + len(images).to_bytes(4, "little") + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    files = b"](" + b"".join(text(b"x.png") for _ in labels) + b"e"
    items = text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + numbers
    return b"\x80\x02}(" + items + text(b"data") + array + text(b"filenames") + files + b"u."


def picture(path: Path, width: int, height: int, color: int) -> np.ndarray:
    """Saves a picture of one tone whose upper half is reddish; returns its pixels [H,W,3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), color, np.uint8)
    pixels[: height // 2, :, 0] = 200
    Image.fromarray(pixels).save(path)
    return pixels
