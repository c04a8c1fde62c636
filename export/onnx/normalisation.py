"""Mean and standard deviation of a network that expects normalised images. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.levels import listed, of_255

Statistics = Sequence[float]
"""One number a channel, or one for all, for images in [0, 1]."""

Normalisation = tuple[Statistics, Statistics]
"""Mean and standard deviation."""


def check_statistics(
    mean: Statistics | None, std: Statistics | None, channels: int = 0, whose: str = ""
) -> Normalisation:
    """`mean` and `std` as they are; raises `InputError` where they cannot be those of images [channels,H,W] in [0, 1].

    `whose` stands before their names in errors, e.g. "--classifier-".
    """
    if mean is None or std is None:
        given, other = ("mean", "std") if std is None else ("std", "mean")
        none = {"mean": "0", "std": "1"}[other]
        raise InputError(f"{whose}{given} is given without {whose}{other}; pass both ({other} {none} changes nothing)")
    for name, values in (("mean", mean), ("std", std)):
        if (
            len(values) not in (1, channels or len(values))
            or not np.isfinite(values).all()
            or (name == "std" and min(values) <= 0)
        ):
            raise InputError(
                f"{whose}{name} is {list(values)}; expected 1 or {channels or 'C'} finite numbers (std: positive)"
            )
    if of_255((*mean, *std)):
        wide = [value / 255 for value in mean] if of_255(mean) else mean
        raise InputError(
            f"{whose}mean {listed(mean)} and {whose}std {listed(std)} are in units of 0 to 255, images in [0, 1]; "
            f"divide by 255: {whose}mean {listed(wide)} and {whose}std {listed(value / 255 for value in std)}"
        )
    return mean, std
