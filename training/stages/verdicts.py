"""One line where a run has gone wrong in a way that people know, and what to change. Rules of thumb, no tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.statistics.routes import MEDIAN
from dualsmooth.training.config import Config, EstimatorConfig
from dualsmooth.training.data import Labels

Floats = npt.NDArray[np.float64]
ONE_SIDED, NOWHERE = 0.95, 0.5


def on_experts(accuracy: Sequence[float], labels: Labels, config: Config) -> list[str]:
    """A line on each level whose `accuracy` (share of single passes that are right, on held-out images with true
    `labels` [N]) is within two standard errors of naming the commonest class each time."""
    share = float(np.bincount(labels).max()) / len(labels)
    limit = share + 2 * math.sqrt(share * (1 - share) / len(labels))
    if config.experts:
        advice = "look at its classes' order (--classes) and normalisation (--experts-mean, --experts-std)"
    else:
        advice = "raise classifier.epochs, try another classifier.lr, leave the level out of sigmas, or add images"
    return [
        f"the classifier at sigma = {sigma:g} is not surely better than chance: {right:.0%} of single passes on "
        f"{len(labels)} held-out images are right, naming the commonest class is right on {share:.0%}; {advice}"
        for sigma, right in zip(config.sigmas, accuracy, strict=True)
        if right <= limit
    ]


def on_labels(radii: Floats, config: Config) -> list[str]:
    """A line where the labels' `radii` [N,K] are largest at one and the same level for 95 % of the images that are
    certified at all, and one where half of the images are certified at no level."""
    certified = radii.max(axis=1) > 0
    lines = []
    if certified.mean() < 1 - NOWHERE:
        lines.append(
            f"labels: {1 - certified.mean():.0%} of {len(radii)} images are certified at no level; raise "
            "classifier.epochs, or add a smaller noise level to sigmas"
        )
    level, share = _most(np.bincount(radii.argmax(axis=1)[certified], minlength=len(config.sigmas)))
    if share >= ONE_SIDED and len(config.sigmas) > 1:
        lines.append(
            f"labels: {share:.0%} of the certified images have their largest radius at sigma = "
            f"{config.sigmas[level]:g}, so there is little to route; {_for_labels(config)}"
        )
    return lines


def on_routes(metrics: Mapping[str, Any], config: Config) -> list[str]:
    """A line where the router, by the `metrics` of a run, sends 95 % of the held-out images to one level."""
    level, share = _most(np.asarray(metrics["routes"][MEDIAN]))
    if share < ONE_SIDED or len(config.sigmas) == 1:
        return []
    sigma = f"{config.sigmas[level]:g}"
    advice = _for_router(config.estimator, level, len(config.sigmas))
    return [
        f"the router has collapsed to one level: {share:.0%} of {metrics['images']} held-out images go to "
        f"sigma = {sigma}; {advice}; or take rule single:{sigma}, which needs no router"
    ]


def _most(counts: npt.NDArray[Any]) -> tuple[int, float]:
    """The level that has most, and its share."""
    return int(counts.argmax()), float(counts.max() / max(counts.sum(), 1e-12))


def _for_labels(config: Config) -> str:
    advice = ["leave levels that win nowhere out of sigmas"]
    if config.labels.radii != "margins":
        advice.append('set labels.radii = "margins" and labels.doubt = 0')
    if config.estimator.worth == 0:
        advice.append("set estimator.worth = 0.5, so that being certified at all counts")
    return ", or ".join(advice)


def _for_router(settings: EstimatorConfig, level: int, levels: int) -> str:
    """What has been seen to help, of the settings that are not so already; docs/training.md, "Aiming at …"."""
    advice = []
    if settings.consistency > 0 or settings.eta > 0:
        advice.append("set estimator.consistency = 0 and estimator.eta = 0")
    if settings.balance < 0.5:
        advice.append("set estimator.balance = 0.5")
    if level == levels - 1:
        advice.append("raise estimator.worth, or estimator.emphasis at small radii")
    elif level == 0:
        advice.append("lower estimator.worth, or raise estimator.emphasis at large radii")
    return ", then ".join([*advice, "label more images (labels.images)"])
