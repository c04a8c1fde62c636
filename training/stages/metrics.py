"""What a finished run measures on its validation split, with the rules of the runtime and a modest number of votes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.runtime.statistics.accuracy import RADII, certified_accuracy
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.routes import MEDIAN, MODE, guess_route
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream, Tally
from dualsmooth.training import seeds
from dualsmooth.training.config import Config
from dualsmooth.training.data import Labels, TrainingData
from dualsmooth.training.stages.labels import Voter

ALPHA = 1e-3
SELECTED = 100
CHECKED = 8


def measure(
    data: TrainingData, classifiers: Sequence[Voter], estimator: Voter, config: Config, *, threads: int = 2
) -> dict[str, Any]:
    """The `summary` of the validation split. The votes of `metrics.votes` passes make certified accuracies smaller than
    a full evaluation would."""
    tallies = collect(data, classifiers, estimator, config, threads=threads)
    return summary(tallies, data.validation_labels[: len(tallies)], config)


def noisy_accuracy(data: TrainingData, classifiers: Sequence[Voter], config: Config) -> tuple[list[float], Labels]:
    """The share of single passes that are right at each level, from 8 passes of each image that metrics measure, and
    these images' labels."""
    labels = data.validation_labels[: config.metrics.images]
    images = np.asarray(data.validation_images[: config.metrics.images])
    shares = []
    for level, (voter, sigma) in enumerate(zip(classifiers, config.sigmas, strict=True)):
        generator = seeds.numpy_generator(config.seed, seeds.Randomness.CHECKS, level)
        votes = voter.votes_of_many(images, sigma, CHECKED, generator)
        shares.append(float(votes[np.arange(len(labels)), labels].mean()) / CHECKED)
    return shares, labels


def summary(tallies: Sequence[Tally], labels: Labels, config: Config) -> dict[str, Any]:
    """Noisy accuracy per level, routes, and certified accuracy per rule, of images with true `labels` [N].

    `noisy_accuracy` is the share of single passes that are right at each level; `routes` the share of images per
    level; `certified_accuracy` the share of images whose certificate at alpha = 0.001 is right and reaches each of
    `radii`.
    """
    levels = range(len(config.sigmas))
    votes = tallies[0].passes(Stream(ESTIMATOR, 0, ESTIMATION))

    def share(stream: Stream) -> float:
        return float(np.mean([t.counts(stream)[y] for t, y in zip(tallies, labels, strict=True)])) / votes

    routes = {}
    for kind in (MEDIAN, MODE):
        guesses = [guess_route(t.counts(Stream(ESTIMATOR, 0, ESTIMATION)), kind) for t in tallies]
        routes[kind] = (np.bincount(guesses, minlength=len(levels)) / len(tallies)).tolist()
    certified = {}
    for rule in ("interval", "paper", *Single.all_named(config.sigmas)):
        terms = checked_terms(
            config.sigmas, config.sigma_e, tallies[0].classes, alpha=ALPHA, rule=rule, route=None,
            budget=Fixed(votes, SELECTED),
        )  # fmt: skip
        outcomes = [settle(terms, tally) for tally in tallies]
        radii = np.array([o.correct_radius(int(y)) for o, y in zip(outcomes, labels, strict=True)])
        certified[rule] = [round(float(part), 4) for part in certified_accuracy(radii)]
    accuracy = {f"{s:g}": round(share(Stream(CLASSIFIER, k, ESTIMATION)), 4) for k, s in enumerate(config.sigmas)}
    return {
        "images": len(tallies),
        "votes": votes,
        "alpha": ALPHA,
        "noisy_accuracy": accuracy,
        "routes": routes,
        "radii": list(RADII),
        "certified_accuracy": certified,
    }


def in_words(metrics: dict[str, Any]) -> str:
    """What `measure` gave, in a line."""
    sigmas = list(metrics["noisy_accuracy"])
    right = ", ".join(f"{share:.1%} at {sigma}" for sigma, share in metrics["noisy_accuracy"].items())
    routed = ", ".join(f"{share:.0%} to {s}" for s, share in zip(sigmas, metrics["routes"][MEDIAN], strict=True))
    return (
        f"of {metrics['images']:,} held-out images' noisy copies the classifier has right, by sigma, {right}; "
        f"the router sends {routed}"
    )


def passes_an_image(config: Config) -> int:
    """Passes of each image and base model."""
    return config.metrics.votes + SELECTED


def collect(
    data: TrainingData, classifiers: Sequence[Voter], estimator: Voter, config: Config, *, threads: int = 2
) -> list[Tally]:
    """Selection and estimation votes of the estimator and of each level's classifier, per validation image."""
    images = data.validation_images[: config.metrics.images]
    served = enumerate(zip(classifiers, config.sigmas, strict=True))
    sources = [(estimator, ESTIMATOR, 0, config.sigma_e), *((voter, CLASSIFIER, k, s) for k, (voter, s) in served)]
    passes = len(sources) * passes_an_image(config)
    progress = Progress("metrics", passes * len(images), "passes")

    def tally(number: int) -> Tally:
        generator = seeds.numpy_generator(config.seed, seeds.Randomness.METRICS, number)
        result = Tally(len(data.classes), len(config.sigmas))
        for voter, stage, level, sigma in sources:
            for purpose, count in ((SELECTION, SELECTED), (ESTIMATION, config.metrics.votes)):
                votes = voter.votes(images[number], sigma, count, generator)
                result.record(Stream(stage, level, purpose), votes)
        progress.advance(passes)
        return result

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(tally, range(len(images))))
