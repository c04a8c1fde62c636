"""A labelled image set for training, `evaluate` and `demo`: uint8 images and integer labels; and what a format of such
sets is.

Small sets are NumPy arrays; folders of pictures are decoded when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.datasets.class_names import match_labels
from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.errors import InputError

Images = npt.NDArray[np.uint8] | ImageFiles


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 [N,C,H,W], `labels` int64 [N], and the names of the classes (empty where unknown).

    `images[i]` is one image, `images[array]` some of them; large sets give `ImageFiles`, which decode on access.
    `indexed`: the numbers of the classes are fixed by those who published the set. `at_size`: the name up to the size
    that its pictures are brought to, so that `f"{at_size}32"` names them at 32 x 32; empty where sizes are fixed.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...] = ()
    indexed: bool = False
    at_size: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def named(self, classes: Sequence[str]) -> Dataset:
        """The same with other names of its classes, in the same order. Raises `InputError`."""
        count = len(self.classes) or int(self.labels.max(initial=-1)) + 1
        if len(classes) < count or (self.classes and len(classes) > count):
            raise InputError(
                f"--classes gives {len(classes)} names; {self.name} has {count} classes: name each of them"
            )
        return replace(self, classes=tuple(classes), indexed=False)

    def prepared(self, how: Preprocessing | None) -> Dataset:
        """The same with pictures of files made to inputs by a bundle's preprocessing, whatever size the set's own name
        asks for. Arrays stay as they are: each is made to one when its turn comes."""
        images = self.images
        return replace(self, images=replace(images, preprocessing=how)) if isinstance(images, ImageFiles) else self

    def fitted(
        self,
        classes: Sequence[str],
        shape: tuple[int, int, int],
        owner: str = "the bundle",
        preprocessing: Preprocessing | None = None,
    ) -> Dataset:
        """The same with labels that count the names `classes`, for networks that take `shape` [C,H,W].

        Classes are matched by name (`match_labels`); pictures of files are read as grey where C is 1. With
        `preprocessing` pictures may have any size (`prepared`). Raises `InputError` where names or sizes do not fit.
        """
        labels = match_labels(
            self.labels, self.classes, classes, data=self.name, owner=owner, indexed=self.indexed
        )  # fmt: skip
        images = self.prepared(preprocessing).images
        if isinstance(images, ImageFiles) and shape[0] == 1:
            images = replace(images, channels=1)
        _, *found = images.shape
        if tuple(found) != tuple(shape) and (preprocessing is None or found[0] not in (1, 3)):
            sized = self.at_size and shape[0] in (1, 3) and shape[1] == shape[2]
            fix = f"pass {self.at_size}{shape[1]}" if sized else "resize them, or pass another data set"
            raise InputError(f"{self.name} has images of {in_words(found)}; {owner} takes {in_words(shape)}: {fix}")
        return replace(self, images=images, labels=labels, classes=tuple(classes))


def in_words(shape: Sequence[int]) -> str:
    """[C,H,W] without an order of axes: whoever reads it may have stored them otherwise."""
    channels, height, width = shape
    return f"{channels} channel{'s' if channels > 1 else ''}, {height} pixels high and {width} wide"


@dataclass(frozen=True)
class Format:
    """A kind of data sets: how they are named, and how they are read.

    `form`: how a name is written, `KIND` or `KIND:PATH`; `help`: the files and what is done to them, in one line.
    `load(name, split, data_dir)`: the set of such a name; `split` is `train` or `test`, `data_dir` the folder of
    --data-dir. It reads what is certain, executes nothing, and raises `InputError` with one line otherwise.
    """

    form: str
    help: str
    load: Callable[[str, str, Path | None], Dataset]

    @property
    def kind(self) -> str:
        return self.form.partition(":")[0]

    def names(self, name: str) -> bool:
        """Whether `name` is written so."""
        kind, colon, _ = name.partition(":")
        return kind == self.kind and bool(colon) == (":" in self.form)


def data_folder(name: str, data_dir: Path | None) -> Path:
    """The folder of --data-dir, for sets that have no usual place. Raises `InputError` where it is not given."""
    if data_dir is None:
        raise InputError(f"dataset {name} has no default folder; pass torchvision's with --data-dir")
    return data_dir


def published(
    name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic], classes: tuple[str, ...]
) -> Dataset:
    """A set [N,C,H,W] whose publishers fixed names and numbers of its classes. Raises `InputError` where the labels [N]
    do not fit."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise InputError(
            f"{name}: {len(images)} images but labels {labels.dtype} {list(labels.shape)}; expected one integer each"
        )
    numbers = labels.astype(np.int64)
    match_labels(numbers, classes, classes, data=name, owner="it")
    return Dataset(name, images, numbers, classes, indexed=True)
