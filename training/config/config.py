"""The configuration of a training run: one frozen dataclass, read from TOML and flags, saved in the run.

This module needs no torch, so that `dualsmooth train --help` works without it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualsmooth.export.onnx.normalisation import check_statistics
from dualsmooth.runtime.datasets.formats import NAMES
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.levels import require_levels, require_unit_scale
from dualsmooth.training.checks import need
from dualsmooth.training.config.sections import (
    DENOISED,
    ClassifierConfig,
    EstimatorConfig,
    FinetuneConfig,
    LabelConfig,
    MetricsConfig,
)
from dualsmooth.training.config.toml import built, to_toml


@dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run.

    `sigma_e` = 0 stands for max(sigmas); `validation` images are held out of the training images; `augment` turns the
    data set's augmentation on, or names another data set whose augmentation is used. `rounds` counts estimators:
    between two of them, the classifiers are trained further on the images that the router sends to them (the
    alternation of Dual RS). `experts` are ONNX files from anywhere, one for each level ("0.25=a.onnx"): then only the
    estimator is trained. With `experts_arch` they are checkpoints of that PyTorch network; `experts_mean` and
    `experts_std` are put in front of experts that expect normalised images.
    `classes` name the networks' outputs, in their order; the data set's are matched to them by name. Without, they are
    those of the experts' bundle, or the data set's.
    """

    dataset: str
    data_dir: str | None = None
    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    sigma_e: float = 0.0
    seed: int = 0
    validation: int = 5_000
    augment: bool | str = True
    rounds: int = 1
    experts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    experts_arch: str = ""
    experts_mean: tuple[float, ...] = ()
    experts_std: tuple[float, ...] = ()
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        self._check_experts()
        require_levels(self.sigmas)
        require_unit_scale([self.sigma_e], "sigma_e")
        need(self.sigma_e >= 0, f"sigma_e is {self.sigma_e}", "a positive noise level, or 0 for max(sigmas)")
        object.__setattr__(self, "sigma_e", self.sigma_e or max(self.sigmas))
        need(self.seed >= 0, f"seed is {self.seed}", "an integer from 0")
        need(self.validation >= 1, f"validation is {self.validation}", "at least 1 image")
        need(self.rounds >= 1, f"rounds is {self.rounds}", "at least 1")
        self._check_trunk()

    def _check_experts(self) -> None:
        """Given experts have their levels, and exclude what trains classifiers."""
        if self.experts:
            object.__setattr__(self, "sigmas", tuple(sigma for sigma, _ in self.expert_files()))
            need(self.rounds == 1 and self.labels.folds == 0, "experts are given, with rounds or folds", "neither")
        told = bool(self.experts_arch or self.experts_mean or self.experts_std)
        need(bool(self.experts) or not told, "experts_arch, _mean or _std is given without experts", "experts too")
        if self.experts_mean or self.experts_std:
            check_statistics(self.experts_mean or None, self.experts_std or None, whose="--experts-")

    def _check_trunk(self) -> None:
        """An estimator that starts from the classifier's features must be of its shape; given experts leave none."""
        classifier, estimator = self.classifier, self.estimator
        model = classifier.model.removeprefix(DENOISED)
        same = (estimator.model, estimator.width, estimator.depth) == (model, classifier.width, classifier.depth)
        need(
            same or not estimator.from_classifier or bool(self.experts),
            "estimator.from_classifier is true but the two networks differ",
            "equal model, width and depth, or from_classifier = false",
        )

    def expert_files(self) -> tuple[tuple[float, Path], ...]:
        """Level and ONNX file of each of the given `experts`."""
        files = []
        for text in self.experts:
            sigma, equals, path = text.partition("=")
            try:
                files.append((float(sigma), Path(path)))
            except ValueError:
                equals = ""
            need(bool(equals and path), f"expert {text!r} is not understood", "SIGMA=FILE.onnx, e.g. 0.25=a.onnx")
        return tuple(files)

    def to_toml(self) -> str:
        """The configuration as TOML; `config_from` reads it back unchanged."""
        return to_toml(dataclasses.asdict(self))


def config_from(values: Mapping[str, Any], source: str) -> Config:
    """Build a `Config` from nested values, as TOML gives them; `source` is named in errors. Raises `InputError`.

    >>> config = config_from({"dataset": "fashion-mnist", "classifier": {"epochs": 5}}, "my settings")
    >>> config.sigmas, config.classifier.epochs
    ((0.25, 0.5, 1.0), 5)
    """
    if "dataset" not in values:
        raise InputError(f"{source}: no dataset is given; pass --dataset {NAMES}")
    config: Config = built(Config, values, source)
    return config


def difference(a: Config, b: Config) -> str | None:
    """The first key in which two configurations differ, as text; the data folder may move and does not count."""
    left, right = (to_toml(dataclasses.asdict(dataclasses.replace(c, data_dir=None))).splitlines() for c in (a, b))
    pairs = itertools.zip_longest(left, right, fillvalue="nothing")
    return next((f"{x} against {y}" for x, y in pairs if x != y), None)
