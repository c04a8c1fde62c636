"""Pictures of anybody, in a folder for each class."""

from __future__ import annotations

import re
from pathlib import Path

from dualsmooth.runtime.datasets.class_folders import read_folders
from dualsmooth.runtime.datasets.dataset import Dataset, Format
from dualsmooth.runtime.errors import InputError

SIZE = 224
"""Of the pictures, unless the name says otherwise."""


def load(name: str, split: str, data_dir: Path | None) -> Dataset:
    """Pictures [N,3,SIZE,SIZE] of the tree that `imagefolder:PATH` or `imagefolder:PATH@SIZE` names, see
    `read_folders`: the shorter side is resized to SIZE and the middle taken."""
    found = re.fullmatch(r"imagefolder:(.+?)(?:@(\d{1,4}))?", name)
    size = int(found[2] or SIZE) if found else 0
    if found is None or size < 1:
        raise InputError(f"dataset {name!r} names no folder; expected imagefolder:PATH or imagefolder:PATH@SIZE")
    files, labels, classes = read_folders(Path(found[1]), split, size, size)
    return Dataset(name, files, labels, classes, at_size=f"imagefolder:{found[1]}@")


FORMAT = Format(
    form="imagefolder:PATH",
    help="a folder of pictures for each class, or such trees for the splits; PATH@SIZE: shorter side to SIZE (224), "
    "middle SIZE x SIZE",
    load=load,
)
