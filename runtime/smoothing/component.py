"""One call for test suites and verification tools: a bundle or an ONNX file, an image, a radius."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualsmooth.runtime.datasets.single_images import ImageLike
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.smoothing.bare import Facts, Pixels, bundle_of, is_file
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE
from dualsmooth.runtime.smoothing.smoother import Smoother, load
from dualsmooth.runtime.statistics.budgets import Budget


def certified_radius(
    bundle: str | Path | Smoother,
    image: ImageLike,
    sigma: float | None = None,
    *,
    label: int | None = None,
    alpha: float = ALPHA,
    budget: Budget | None = None,
    seed: int | None = None,
    pixels: Pixels | None = None,
    classes: int | str | Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str | None = None,
    **options: Any,
) -> float | None:
    """With probability at least 1 - alpha, the smoothed classifier is constant within the returned radius (L2, input
    units); None where it abstains, or gives another class than `label`.

    `bundle`: its folder or name, opened and closed again with `options` (those of `load`), or a `Smoother`, which stays
    open for more calls. `sigma`: one of the bundle's noise levels, for the classifier smoothed at that level alone;
    None for the dual classifier. Other arguments and errors as for `Smoother.certify`.

    `bundle` may be the ONNX file of a classifier too, which `dualsmooth.export.export_file` (extra `export`) makes a
    passing bundle of, with all its checks: then `sigma` and `pixels` must be said ("0..1", "0..255", or mean and std),
    and `classes`, `input_shape` [C,H,W] and `layout` where the file does not declare them. For many images, make the
    bundle once.

    >>> import dualsmooth as ds
    >>> image = ds.sample("fashion-mnist", 0)  # an ankle boot, class 9
    >>> certified_radius("fashion-mnist", image, 0.5, budget=ds.Fixed(1_000), seed=1) > 0.3
    True
    >>> certified_radius("fashion-mnist", image, 0.5, label=2, budget=ds.Fixed(1_000), seed=1) is None
    True
    """
    facts = Facts(sigma, pixels, classes, input_shape, layout)
    if not isinstance(bundle, Smoother) and is_file(bundle):
        with tempfile.TemporaryDirectory(prefix="dualsmooth-file-") as folder:
            made = bundle_of(bundle, Path(folder) / "bundle", facts).path
            return certified_radius(made, image, label=label, alpha=alpha, budget=budget, seed=seed, **options)
    facts.require_none("an open smoother" if isinstance(bundle, Smoother) else bundle)
    if not isinstance(bundle, Smoother):
        with load(bundle, **options) as opened:
            return certified_radius(opened, image, sigma, label=label, alpha=alpha, budget=budget, seed=seed)
    if options:
        raise InputError(f"{', '.join(options)} with an open smoother; they are for a bundle that is opened here")
    count = len(bundle.bundle.classes)
    if label is not None and not (isinstance(label, int) and 0 <= label < count):
        raise InputError(f"label is {label!r}; expected a class from 0 to {count - 1}, or none")
    rule = RULE if sigma is None else f"single:{sigma}"
    certificate = bundle.certify(image, alpha=alpha, budget=budget, rule=rule, seed=seed)
    return certificate.radius if certificate.label is not None and label in (None, certificate.label) else None
