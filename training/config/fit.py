"""Settings that fit themselves to few images: what nobody has set is lowered, and said. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any

from dualsmooth.training.config.config import Config

_LEAST_BATCH, _STEPS = 8, 16


def fitted(config: Config, images: int, given: Collection[str] | None = None) -> tuple[Config, list[str]]:
    """`config` for a data set of `images` training images, and a line on each setting that was lowered for them.

    The settings of `FITS` alone are lowered, and of these none that is `given` (default: none that differs from its
    default).

    >>> config, lines = fitted(Config("npz:few.npz"), 64)
    >>> config.validation, config.labels.images, lines[0]
    (12, 52, 'validation is 12, not 5000, because there are only 64 training images')
    """
    lines = []
    untouched = Config(config.dataset)
    for key, most in FITS.items():
        value = attrgetter(key)(config)
        kept = value != attrgetter(key)(untouched) if given is None else key in given
        limit = most(config, images)
        if not kept and value > limit:
            config = with_value(config, key, limit)
            lines.append(f"{key} is {limit}, not {value}, because there are only {images:,} training images")
    return config, lines


def with_value(config: Any, key: str, value: Any) -> Any:
    """A configuration with another value at the dotted `key`."""
    name, _, rest = key.partition(".")
    return dataclasses.replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


def _held_out(config: Config, images: int) -> int:
    return max(1, images // 5)


def _left(config: Config, images: int) -> int:
    return max(1, images - config.validation)


def _batch(images: int) -> int:
    """The largest power of two that makes 16 steps an epoch, at least 8."""
    return max(_LEAST_BATCH, 1 << (max(1, images // _STEPS).bit_length() - 1))


FITS: dict[str, Callable[[Config, int], int]] = {
    "validation": _held_out,
    "labels.images": _left,
    "metrics.images": lambda config, images: config.validation,
    "classifier.batch_size": lambda config, images: _batch(_left(config, images)),
    "estimator.batch_size": lambda config, images: _batch(config.labels.images or _left(config, images)),
}
"""What each setting is at most, for so many images; those above decide those below."""
