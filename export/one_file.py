"""One ONNX file of a classifier, as other people's tools write it, to a bundle of one noise level in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualsmooth.export.bundle import export_bundle
from dualsmooth.export.onnx.files import shape_of, width_of
from dualsmooth.export.onnx.layout import LAYOUTS
from dualsmooth.export.onnx.normalisation import Normalisation, check_statistics
from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.datasets.class_names import numbered, read_class_names
from dualsmooth.runtime.errors import BundleError, InputError, one_of
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.noise.levels import require_levels
from dualsmooth.runtime.smoothing.bare import PIXEL_FORMS, SCALES, Pixels


def export_file(
    path: str | Path,
    out: str | Path,
    *,
    sigma: float,
    pixels: Pixels,
    classes: int | str | Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str = "nchw",
) -> Bundle:
    """A bundle of one noise level `sigma` (pixels in [0, 1]) and no router, of the classifier in an ONNX file.

    `pixels` says what the file takes for an image in [0, 1], since it cannot say that itself: `"0..1"`: the image as it
    is; `"0..255"`: 255 times that; or a pair (mean, std), one number a channel or one for all: (x - mean) / std. That
    is put in front of the network, after the noise. Its output may be logits or probabilities: votes are arg max, the
    same of both; never labels, nor distances of which the smallest wins. `classes`: their names, or how many; by
    default as many as the file declares. `input_shape` [C,H,W]: what the file declares unless given. `layout`: `nhwc`
    for a file that takes channels last.

    The same file under the same name, arguments and versions give the same manifest, so that a certificate can be
    checked with a bundle that is made anew. Raises `InputError` for arguments that do not fit and for a file of another
    kind, `BundleError` for a network that cannot serve, as `export_bundle`.
    """
    path = Path(path)
    number = isinstance(sigma, int | float | np.integer | np.floating) and type(sigma) is not bool
    if not number:
        raise InputError(f"sigma is {str(sigma)[:40]!r}; expected one noise level, e.g. 0.25")
    require_levels([float(sigma)], "sigma")
    if layout not in LAYOUTS:
        raise InputError(f"layout is {str(layout)[:40]!r}; expected {one_of(LAYOUTS)}")
    shape = shape_of(path, layout) if input_shape is None else _shape(input_shape)
    statistics = _statistics(pixels, shape[0])
    return export_bundle(
        out,
        classifiers=[path],
        sigmas=[float(sigma)],
        classes=_classes(path, classes),
        input_shape=shape,
        normalise={} if statistics is None else {"classifier": statistics},
        layout=layout,
        provenance={"source": {path.name: sha256_of(path)}, "pixels": _stated(pixels, statistics)},
    )


def _shape(given: Sequence[int]) -> tuple[int, int, int]:
    sizes = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if len(sizes) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
        raise InputError(f"input_shape is {str(given)[:40]}; expected C,H,W, e.g. 3,32,32")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _statistics(pixels: Pixels, channels: int) -> Normalisation | None:
    """Mean and std to put in front; None where images go in as they are. Raises `InputError`."""
    if isinstance(pixels, str) and pixels in SCALES:
        return None if SCALES[pixels] == 1 else ((0.0,), (1 / SCALES[pixels],))
    try:
        mean, std = [] if isinstance(pixels, str) else (np.ravel(np.asarray(part, np.float64)) for part in pixels)
    except (TypeError, ValueError):
        raise InputError(f"pixels is {str(pixels)[:60]!r}; expected {PIXEL_FORMS}") from None
    return check_statistics(mean.tolist(), std.tolist(), channels, "pixels: ")


def _stated(pixels: Pixels, statistics: Normalisation | None) -> object:
    """What was said of pixels, for the provenance."""
    if isinstance(pixels, str) or statistics is None:
        return pixels
    return dict(zip(("mean", "std"), statistics, strict=True))


def _classes(path: Path, given: int | str | Sequence[str] | None) -> Sequence[str]:
    if isinstance(given, int | str):
        return read_class_names(str(given))
    if given is not None:
        return list(given)
    width = width_of(path)
    if width == 1:
        raise BundleError(
            f"{path} gives one number an image; expected one a class, at least 2: put the 0 that it is compared with "
            "beside it (Concat), before any sigmoid"
        )
    return numbered(width)
