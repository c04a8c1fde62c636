"""What another precision does to certified accuracy: the fp32 bundle and the new one on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.smoothing.smoother import load
from dualsmooth.runtime.statistics.budgets import Fixed


@dataclass(frozen=True)
class Sample:
    """Test images [M,C,H,W], labels [M] of the bundle's classes; the last fifth of a data set is left alone, for final
    measurements."""

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @staticmethod
    def load(
        name: str, data_dir: Path | None, count: int, classes: Sequence[str], shape: tuple[int, int, int]
    ) -> Sample:
        dataset = load_dataset(name, split="test", data_dir=data_dir).fitted(classes, shape)
        usable = max(1, len(dataset) * 4 // 5)
        if not 1 <= count <= usable:
            raise InputError(f"{count} images of {name} were asked for; expected 1 to {usable}")
        index = np.arange(count) * usable // count
        return Sample(name, np.asarray(dataset.images[index]), dataset.labels[index])


def side_by_side(original: Path, bundle: Bundle, sample: Sample, *, passes: int, alpha: float = 1e-3) -> str:
    """A table of certified accuracy (interval rule) of the fp32 bundle `original` and of `bundle`, each with noise of
    its own."""
    curves = {
        "fp32": certified(original, sample, passes, alpha),
        bundle.precision: certified(bundle.path, sample, passes, alpha),
    }
    head = (
        f"certified accuracy on {len(sample.labels)} test images of {sample.name}, N = {passes}, alpha = {alpha:g} "
        "(each row with noise of its own):"
    )
    return f"\n{head}\n\n{markdown_table(curves)}"


def certified(path: Path, sample: Sample, passes: int, alpha: float) -> npt.NDArray[np.float64]:
    """Certified radii [M] of the correct label; -1 where it is not certified."""
    certificates = load(path).certify_many(sample.images, alpha=alpha, budget=Fixed(passes))
    pairs = zip(certificates, sample.labels, strict=True)
    return np.array([c.correct_radius(int(label)) for c, label in pairs])
