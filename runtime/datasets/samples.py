"""Pictures that ship beside the bundles, to try these on."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import shipped_manifest
from dualsmooth.runtime.bundle.shipped import SHIPPED, SHIPPED_NAMES
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError


def sample(name: str = "fashion-mnist", index: int = 0) -> npt.NDArray[np.uint8]:
    """A picture to try the bundle that ships as `name` on: uint8 [C,H,W], of the class `sample_label(name, index)`.

    Raises `InputError` where no such picture ships.

    >>> sample("fashion-mnist").shape, sample_label("fashion-mnist")
    ((1, 28, 28), 9)
    """
    return np.array(_samples(name, index).images[index])


def sample_label(name: str = "fashion-mnist", index: int = 0) -> int:
    """The class that `sample(name, index)` shows, as a number of the bundle's. Raises `InputError`."""
    return int(_samples(name, index).labels[index])


def _samples(name: str, index: int) -> Dataset:
    if name not in SHIPPED:
        raise InputError(f"no pictures ship as {str(name)[:60]!r}; expected {SHIPPED_NAMES}")
    found = _read(name)
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < len(found):
        raise InputError(f"picture {str(index)[:40]} of {name}; expected an index from 0 to {len(found) - 1}")
    return found


@cache
def _read(name: str) -> Dataset:
    bundle = shipped_manifest(name)
    return load_dataset(f"npz:{SHIPPED[name].file}").fitted(bundle.classes, bundle.input_shape)
