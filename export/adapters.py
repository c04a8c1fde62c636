"""Smoothed classifiers of other people's code to a bundle in one call. Nothing of theirs is imported: attributes tell.

Cohen et al.'s `Smooth` has `base_classifier`, `num_classes` and `sigma`; estimators of IBM's Adversarial Robustness
Toolbox have `model`, `nb_classes`, `input_shape`, and `scale` where they are smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualsmooth.export.bundle import export_bundle
from dualsmooth.export.onnx.normalisation import Normalisation
from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.errors import InputError


def export_smoothed(
    source: Any,
    out: str | Path,
    *,
    sigma: float | None = None,
    input_shape: tuple[int, int, int] | None = None,
    classes: Sequence[str] | None = None,
    **options: Any,
) -> Bundle:
    """A bundle of one noise level, of Cohen's `Smooth` or an estimator of ART's with a PyTorch model.

    `sigma`: theirs unless given; `input_shape` [C,H,W]: theirs, which `Smooth` does not have; `classes`: their names,
    by default their numbers. ART's `preprocessing` (mean, std) goes in front of the network, after the noise, as there.
    `options`: those of `export_bundle`. Raises `InputError` for what is neither, or would be another classifier here.
    """
    if hasattr(source, "base_classifier"):
        network, count, level, shape = source.base_classifier, source.num_classes, source.sigma, None
    elif hasattr(source, "nb_classes") and hasattr(source, "model"):
        _require_plain(source)
        network, count, level, shape = source.model, source.nb_classes, getattr(source, "scale", None), _shape(source)
        if statistics := _statistics(getattr(source, "preprocessing", None)):
            options = {"normalise": {"classifier": statistics}} | options
    else:
        raise InputError(
            f"{type(source).__name__} is no smoothed classifier; expected Cohen's Smooth (base_classifier, num_classes,"
            " sigma) or an estimator of ART's (model, nb_classes, input_shape); pass networks to export_bundle"
        )
    level, shape = level if sigma is None else sigma, shape if input_shape is None else input_shape
    if level is None or shape is None:
        name, example = ("sigma", "sigma=0.25") if level is None else ("input_shape", "input_shape=(3, 32, 32)")
        raise InputError(f"{type(source).__name__} has no {name}; pass it, e.g. {example}")
    names = tuple(map(str, range(count))) if classes is None else tuple(classes)
    return export_bundle(out, classifiers=[network], sigmas=[level], classes=names, input_shape=shape, **options)


def _require_plain(source: Any) -> None:
    """Raises `InputError` where an estimator of ART's does to inputs or outputs what a bundle does not."""
    for name in ("preprocessing_defences", "postprocessing_defences"):
        if getattr(source, name, None):
            raise InputError(
                f"the estimator has {name}, which a bundle has not; leave them out, or put them in the model"
            )
    clip = getattr(source, "clip_values", None)
    if clip is not None and not (np.all(np.asarray(clip[0]) == 0) and np.all(np.asarray(clip[1]) == 1)):
        raise InputError(
            f"the estimator has clip_values {clip}; expected images in [0, 1]: sigma and radii are in its units"
        )
    if not getattr(source, "channels_first", True):
        raise InputError("the estimator takes channels last; expected a PyTorch model with channels_first=True")


def _shape(source: Any) -> tuple[int, int, int]:
    shape = tuple(map(int, source.input_shape))
    if len(shape) != 3:
        raise InputError(f"the estimator has input_shape {shape}; expected images [C,H,W]")
    return shape[0], shape[1], shape[2]


def _statistics(given: Any) -> Normalisation | None:
    """Mean and standard deviation that ART puts before the network: a pair, or an object that has both; None where they
    change nothing. Raises `InputError`."""
    if given is None:
        return None
    pair = (given.mean, given.std) if hasattr(given, "mean") and hasattr(given, "std") else given
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise InputError(
            f"the estimator has preprocessing {str(given)[:40]!r}; expected (mean, std): put it in the model"
        )
    mean, std = (np.asarray(part, np.float64).ravel() for part in pair)
    if np.all(mean == 0) and np.all(std == 1):
        return None
    return mean.tolist(), std.tolist()
