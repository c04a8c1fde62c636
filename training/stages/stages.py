"""The stages of a run, round by round: classifiers, labels, estimator, metrics. Each resumes from its own files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.training.config import Config
from dualsmooth.training.data import TrainingData
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import Network
from dualsmooth.training.run import record as files
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.seeds import Randomness, numpy_generator
from dualsmooth.training.stages.classifier import train_classifier
from dualsmooth.training.stages.estimator import estimator_spec, train_estimator
from dualsmooth.training.stages.experts import adopt_experts
from dualsmooth.training.stages.forecast import Forecast
from dualsmooth.training.stages.labels import (
    Floats,
    Voter,
    label_indices,
    label_radii,
    label_votes,
    route_votes,
    voter_of,
)
from dualsmooth.training.stages.metrics import in_words, measure, noisy_accuracy
from dualsmooth.training.stages.verdicts import on_experts, on_labels, on_routes

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """What every stage needs; `seconds` collects how long each took, `forecast` says how long the others will.
    `picked` are the networks that were asked of other runs by name: they stay as they are, however trained."""

    root: Path
    config: Config
    data: TrainingData
    threads: int
    device: str
    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    forecast: Forecast = field(default_factory=Forecast)
    picked: frozenset[str] = frozenset()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = max(0.0, round(time.monotonic() - start, 1))

    def part(self, path: Path) -> AbstractContextManager[None]:
        """Time what makes `path`, for the forecast."""
        return self.forecast.part(str(path.relative_to(self.root)))

    def warn(self, prefix: str, lines: Sequence[str]) -> None:
        """Say what has gone wrong."""
        for line in lines:
            self.say(f"{prefix}careful: {line}")


@dataclass(frozen=True)
class Round:
    """A finished round. `families` are the classifiers, one network a level: of all images, then one for each fold."""

    families: tuple[tuple[Network, ...], ...]
    estimator: Network
    metrics: dict[str, Any]


def check_estimator(config: Config, data: TrainingData) -> None:
    """Raise `InputError` now for an estimator that cannot be built; its turn comes after hours of other work."""
    estimator, classifier = config.estimator, config.classifier
    if config.experts or (estimator.model, estimator.width) != (classifier.model, classifier.width):
        build(estimator_spec(config, data))


def run_rounds(work: Work) -> dict[str, Any]:
    """All rounds; returns the metrics of the last, and those of each under `rounds` where there are several."""
    done: list[Round] = []
    for number in range(work.config.rounds):
        done.append(_round(work, number, done[-1] if done else None))
    if len(done) == 1:
        return done[0].metrics
    return {**done[-1].metrics, "rounds": [each.metrics for each in done]}


def _round(work: Work, number: int, previous: Round | None) -> Round:
    config, data, prefix = work.config, work.data, f"round{number + 1} " if number else ""
    folder = work.root / files.round_folder(number)
    folder.mkdir(exist_ok=True)
    everything = np.arange(len(data.images), dtype=np.int64)
    index = label_indices(len(data.images), config)
    cut = _folds(index, config)
    parts = [everything, *(np.setdiff1d(everything, part) for part in cut)]
    families: list[tuple[Network, ...]] = []
    with work.stage(f"{prefix}classifier"):
        if config.experts:
            voters = adopt_experts(work.root, config, len(data.classes), data.input_shape)
        else:
            shares = None if previous is None else _route_shares(work, folder, previous.estimator)
            for fold, rows in enumerate(parts):
                start = None if previous is None else previous.families[fold]
                families.append(_family(work, folder, (number, fold), rows, start, shares))
            voters = _voters(families[0], data)
        work.warn(prefix, on_experts(*noisy_accuracy(data, voters, config), config))
    if files.ESTIMATOR in work.picked:
        estimator = load_checkpoint(folder / files.ESTIMATOR).network()
    else:
        radii = _labelled(work, number, index, cut, families, voters)
        with work.stage(f"{prefix}estimator"), work.part(folder / files.ESTIMATOR):
            trunk = previous.estimator if previous else families[0][_nearest(config)] if families else None
            estimator = train_estimator(
                folder / files.ESTIMATOR, data, index, radii, trunk, config, key=(number,) if number else (),
                device=work.device,
            )  # fmt: skip
    with work.stage(f"{prefix}metrics"), work.part(folder / "metrics"):
        metrics = measure(data, voters, voter_of(estimator, data.input_shape), config, threads=work.threads)
    work.say(f"{prefix}validation: {in_words(metrics)}")
    work.warn(prefix, on_routes(metrics, config))
    return Round(tuple(families), estimator, metrics)


def _labelled(
    work: Work, number: int, index: Rows, cut: Sequence[Rows], families: Sequence[Sequence[Network]],
    voters: Sequence[Voter],
) -> Floats:  # fmt: skip
    """The radii [N,K] of the images `index`, by `voters`, or each fold of them by the classifiers that left it out."""
    config, data, prefix = work.config, work.data, f"round{number + 1} " if number else ""
    folder = work.root / files.round_folder(number)
    radii = np.zeros((len(index), len(config.sigmas)))
    with work.stage(f"{prefix}labels"):
        for fold, members in enumerate(cut or [index], start=bool(config.labels.folds)):
            place = np.isin(index, members)
            judges = voters if fold == 0 else _voters(families[fold], data)
            votes = folder / files.label_folder(fold)
            with work.part(votes):
                drawn = label_votes(
                    votes, data, index[place], judges, config, key=(number, fold) if number or fold else (),
                    threads=work.threads,
                )  # fmt: skip
            radii[place] = label_radii(drawn, config.labels, config.sigmas)
    _describe(work, prefix, radii)
    return radii


def _family(
    work: Work, folder: Path, key: tuple[int, int], rows: Rows, start: tuple[Network, ...] | None, shares: Floats | None
) -> tuple[Network, ...]:
    """The classifiers trained on `rows`, one for each level; a shared one is the same object throughout.

    Without `start` they are fresh, or in a chain. With it they are fine-tuned: an expert on images drawn in proportion
    to `shares` [N,K], a shared classifier at each image's levels in proportion to them.
    """
    config, number, fold = work.config, *key
    settings, tuned = config.classifier, config.finetune
    further = dataclasses.replace(settings, epochs=tuned.epochs, lr=tuned.lr)
    networks: dict[str, Network] = {}
    names = files.classifier_names(config, fold)
    for level, name in enumerate(names):
        if name in networks:
            continue
        if name in work.picked and not (number or fold):
            networks[name] = load_checkpoint(folder / name).network()
            continue
        served = (config.sigmas[level],) if config.classifier.experts else config.sigmas
        tag = (number, fold, round(served[0] * 1e6) if config.classifier.experts else 0)
        drawn, weights = rows, None
        if shares is not None and config.classifier.experts:
            chance = shares[rows, level] / shares[rows, level].sum()
            drawn = numpy_generator(config.seed, Randomness.DRAWS, *tag).choice(rows, len(rows), p=chance)
        elif shares is not None:
            weights = shares[rows].astype(np.float32)
        below = networks[names[level - 1]] if level and settings.chain else None
        with work.part(folder / name):
            networks[name] = train_classifier(
                folder / name, work.data, config, levels=served, rows=drawn, weights=weights,
                start=below if start is None else start[level], key=tag if any(tag) else (), device=work.device,
                settings=settings.at(level, len(names)) if start is None else further,
            )  # fmt: skip
    return tuple(networks[name] for name in names)


def _route_shares(work: Work, folder: Path, estimator: Network) -> Floats:
    """How often [N,K] each training image is drawn for each level when classifiers are fine-tuned."""
    config, data = work.config, work.data
    voter = voter_of(estimator, data.input_shape)
    with work.part(folder / files.ROUTES):
        votes = route_votes(folder / files.ROUTES, data, voter, config, threads=work.threads)
    shares, everywhere = votes / config.finetune.votes, config.finetune.everywhere
    return np.asarray((1 - everywhere) * shares + everywhere / len(config.sigmas), np.float64)


def _folds(index: Rows, config: Config) -> list[Rows]:
    """The labelled images cut into the folds of cross-fitting; none without."""
    return [np.sort(part) for part in np.array_split(index, config.labels.folds)] if config.labels.folds else []


def _voters(networks: Sequence[Network], data: TrainingData) -> list[Voter]:
    voters = {id(network): voter_of(network, data.input_shape) for network in {id(n): n for n in networks}.values()}
    return [voters[id(network)] for network in networks]


def _nearest(config: Config) -> int:
    """The level nearest to the estimator's own: its expert knows that noise best."""
    return int(np.argmin(np.abs(np.asarray(config.sigmas) - config.sigma_e)))


def _describe(work: Work, prefix: str, radii: Floats) -> None:
    best = radii.argmax(axis=1)[radii.max(axis=1) > 0]
    shares = ", ".join(f"{s:g}: {(best == k).mean() if len(best) else 0:.0%}" for k, s in enumerate(work.config.sigmas))
    nowhere = float((radii.max(axis=1) == 0).mean())
    work.say(f"{prefix}labels: largest radius at {shares}; {nowhere:.0%} of the images certified at no level")
    work.warn(prefix, on_labels(radii, work.config))
