"""Pictures in class folders: which picture is of which class and split, without opening any."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.decode import SUFFIXES, is_picture
from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.errors import InputError

TRAIN = ("train", "training")
TEST = ("val", "valid", "validation", "test", "testing")
"""How the folders of the splits are called, in any case; of several test splits, the first one here is taken."""


def read_folders(
    root: Path, split: str, size: int, resize: int, *, share: float = 0.2, seed: int = 0
) -> tuple[ImageFiles, npt.NDArray[np.int64], tuple[str, ...]]:
    """Images, labels and class names of the tree `root`: one folder for each class, or such trees in `train` and `val`
    (other names: `TRAIN`, `TEST`).

    Without a tree for the test split, a `share` of the pictures is held out for it, by a hash of `seed` and their path:
    the same ones in every run, whatever else is added. Classes are the names of the folders, those of `train` where
    there is one, sorted, as numbers where all are numbers. What is no picture is left out, and said on stderr; a class
    folder without pictures is refused. Raises `InputError`.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected one with a folder of pictures for each class")
    train, test = (_split_folder(root, names) for names in (TRAIN, TEST))
    _check_flat(root, train, test)
    tree = train or root
    if test is not None and split == "test":
        tree = test
    elif test is not None and train is None:
        raise InputError(f"{root} has {test.name} but no train folder; expected both, or class folders only")
    classes = _subfolders(train or tree)
    present = _subfolders(tree)
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise InputError(f"{tree} has class {unknown[0]!r}, which {train} has not; expected the same class folders")
    skipped: Counter[str] = Counter()
    pictures = {name: _pictures(tree / name, skipped) for name in classes if name in present}
    with os.scandir(tree) as entries:
        stray = sum(is_picture(entry.name) for entry in entries if entry.is_file())
    beside = [] if train is test else [n for n in _subfolders(root) if n.lower() not in (*TRAIN, *TEST)]
    _say_skipped(tree, skipped, stray, beside)
    empty = [name for name, found in pictures.items() if not found]
    if len(classes) < 2:
        raise InputError(
            f"{tree} has {len(classes)} class folders, and {stray} pictures outside of them; expected a folder of "
            "pictures for each of at least 2 classes"
        )
    if empty:
        raise InputError(
            f"{tree}: no pictures in {', '.join(empty[:8])} ({len(empty)} of {len(classes)} class folders); expected "
            f"{' '.join(SUFFIXES)}: convert what is there, or remove the folders"
        )
    found = [(path, label) for label, name in enumerate(classes) for path in pictures.get(name, ())]
    if test is None:
        found = [(path, label) for path, label in found if _held_out(path, tree, share, seed) == (split == "test")]
    if not found:
        raise InputError(f"{tree} holds no pictures for {split}; add some, or make folders train and val")
    labels = np.array([label for _, label in found], np.int64)
    return ImageFiles(np.array([os.fsencode(path) for path, _ in found]), size, resize), labels, classes


def _split_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` that holds a split: called so, and made of folders (pictures in it make it a class)."""
    there = {name.lower(): name for name in reversed(_subfolders(root))}
    chosen = (root / there[name] for name in names if name in there)
    return next((path for path in chosen if _subfolders(path)), None)


def _check_flat(root: Path, train: Path | None, test: Path | None) -> None:
    """Refuse a split whose pictures lie in no class folders, as ImageNet's validation images come."""
    there = _subfolders(root)
    for names, found in ((TRAIN, train), (TEST, test)):
        flat = [name for name in there if name.lower() in names and not _subfolders(root / name)]
        if flat and found is None and (train or test or all(name.lower() in (*TRAIN, *TEST) for name in there)):
            raise InputError(f"{root / flat[0]} holds no class folders; move each picture into a folder of its class")


def _subfolders(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root`, links followed, without hidden ones; by number where all are numbers."""
    with os.scandir(root) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in found:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise InputError(f"{entry.path} is a link to nothing; mend it, or remove it")
    names = sorted(entry.name for entry in found if entry.is_dir())
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def _pictures(root: Path, skipped: Counter[str]) -> list[str]:
    """Paths of the pictures below `root`, links followed; `skipped` counts the other files by their suffix."""

    def unreadable(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename} ({error.strerror}); mend its permissions")

    pictures, seen = [], set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it, or to one that was read
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            if is_picture(name) and not name.startswith("."):
                pictures.append(os.path.join(folder, name))
            else:
                skipped["hidden" if name.startswith(".") else os.path.splitext(name)[1].lower() or "no suffix"] += 1
    return sorted(pictures)


def _say_skipped(tree: Path, skipped: Counter[str], stray: int, beside: list[str]) -> None:
    """One line about what was not read: files by suffix, pictures in no class, folders beside those of the splits."""
    parts = [f"{kind} ({count})" for kind, count in skipped.most_common()]
    parts += [f"the folder {name} beside it" for name in beside]
    parts += [f"pictures outside of the class folders ({stray})"] if stray else []
    if parts:
        print(f"{tree}: left out, as no pictures of a class: {', '.join(parts)}", file=sys.stderr)


def _held_out(path: str, root: Path, share: float, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}:{Path(path).relative_to(root).as_posix()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
