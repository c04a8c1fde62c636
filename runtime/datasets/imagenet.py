"""ImageNet in torchvision's layout: a folder of pictures for each class, named by its WordNet id."""

from __future__ import annotations

from pathlib import Path

from dualsmooth.runtime.datasets.class_folders import read_folders
from dualsmooth.runtime.datasets.dataset import Dataset, Format, data_folder
from dualsmooth.runtime.errors import InputError

SIZE, SHORTER_SIDE = 224, 256
CLASSES = 1000


def load(name: str, split: str, data_dir: Path | None) -> Dataset:
    """Pictures [N,3,224,224] of `data_dir`'s `train/WNID/*.JPEG` or `val/WNID/*.JPEG`: the shorter side is resized to
    256 and the middle taken. Some of the classes will do."""
    folder = data_folder(name, data_dir)
    if not (folder / ("train" if split == "train" else "val")).is_dir():
        raise InputError(f"{folder} has no folder for {split}; expected train/WNID/*.JPEG and val/WNID/*.JPEG")
    files, labels, classes = read_folders(folder, split, SIZE, SHORTER_SIDE, share=0.0)
    return Dataset(name, files, labels, classes, indexed=len(classes) == CLASSES)


FORMAT = Format(
    form="imagenet",
    help="torchvision's train/WNID/*.JPEG and val/WNID/*.JPEG in --data-dir; shorter side to 256, middle 224 x 224",
    load=load,
)
