"""Pictures of known classes that the page offers, and that attacks may go towards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.bundle.shipped import DATA, SHIPPED
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import printable
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import eight_bits

MOST, ROOM = 200, 8_000_000
"""Pictures, and bytes of them, that are kept."""
OFFERED, OFFERED_ROOM, EACH = 20, 1_500_000, 2
"""Pictures, and bytes of them, that the page offers; of each class at most so many, while there are others."""


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 [N,C,H,W], `labels` [N], and the `names` of their classes [N]. `offered`: places of those that the
    page shows."""

    images: npt.NDArray[np.uint8]
    labels: list[int]
    names: list[str]
    offered: list[int]

    @classmethod
    def of(cls, smoother: Smoother, dataset: Dataset | None) -> Pictures:
        """The first pictures of a data set; of none those that ship beside the bundle, if any. Raises `InputError`
        where they do not fit the bundle."""
        bundle = smoother.bundle
        dataset = dataset or _shipped(bundle)
        if dataset is None:
            return cls(np.empty((0, *bundle.input_shape), np.uint8), [], [], [])
        fitted = dataset.fitted(bundle.classes, bundle.input_shape, preprocessing=bundle.preprocessing)
        size = math.prod(bundle.input_shape)
        count = min(len(fitted), MOST, max(1, ROOM // size))
        images = np.stack([eight_bits(smoother.check_image(fitted.images[i])) for i in range(count)])
        labels = [int(label) for label in fitted.labels[:count]]
        names = [printable(bundle.classes[label]) for label in labels]
        return cls(images, labels, names, _offered(labels, min(OFFERED, max(1, OFFERED_ROOM // size))))


def _shipped(bundle: Bundle) -> Dataset | None:
    """The pictures that ship with a bundle that ships."""
    found = [row for row in SHIPPED.values() if row.folder.resolve() == bundle.path.resolve()]
    return load_dataset(f"npz:{DATA / found[0].images}") if found else None


def _offered(labels: list[int], most: int) -> list[int]:
    """The first `EACH` of each class, then the first of the others, in their order."""
    place = [labels[:i].count(label) for i, label in enumerate(labels)]
    return sorted(sorted(range(len(labels)), key=lambda i: place[i] >= EACH)[:most])
