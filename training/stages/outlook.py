"""The forecast of a run: a few steps and votes of its networks are timed, and the rest is counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dualsmooth.training.config import Config
from dualsmooth.training.config.sections import ClassifierConfig
from dualsmooth.training.data import TrainingData
from dualsmooth.training.loop.rehearsal import Rehearsal
from dualsmooth.training.run import record as files
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.stages.classifier import classifier_lesson
from dualsmooth.training.stages.estimator import estimator_lesson
from dualsmooth.training.stages.experts import expert_graph
from dualsmooth.training.stages.forecast import MARGIN, TRAINING, VOTES, Pace, Part, Span, span_of
from dualsmooth.training.stages.labels import Voter, fewest_passes, voter_of
from dualsmooth.training.stages.metrics import passes_an_image

Find = Callable[[str], Path | None]
"""Where a file of the run is already, by its name in it, if it is."""
_IMAGES, _COPIES, _ROUNDS = 8, 32, 5


def parts_left(config: Config, data: TrainingData, threads: int, device: str, find: Find) -> list[Part]:
    """What is still to be made of a run, in its order, with the seconds that each part takes."""
    with torch.random.fork_rng(enabled=device == "cpu"):
        return _Outlook(config, data, threads, device, find).parts()


class _Outlook:
    def __init__(self, config: Config, data: TrainingData, threads: int, device: str, find: Find) -> None:
        self.config, self.data, self.threads, self.device, self.find = config, data, threads, device, find
        self.images = len(data.images)
        self.labelled = min(config.labels.images or self.images, self.images)
        rehearsal = Rehearsal(*estimator_lesson(data, config, self.labelled, device), config.estimator, device)
        self.estimator = _pace(rehearsal)
        self.estimator_pass = self._vote_seconds(_voter(rehearsal, data))
        self.paces: dict[tuple[object, ...], Pace] = {}
        self.classifier_pass = self._given_pass() if config.experts else self._trained_pass()

    def _given_pass(self) -> Span:
        """Seconds of a vote of a given expert."""
        _, path = self.config.expert_files()[0]
        graph = expert_graph(path, self.config, len(self.data.classes), self.data.input_shape)
        return self._vote_seconds(Voter(graph.SerializeToString()))

    def _trained_pass(self) -> Span:
        """Seconds of a vote of a classifier of ours."""
        return self._vote_seconds(_voter(self._rehearsal(self.config.classifier, self.config.sigmas[:1]), self.data))

    def _rehearsal(self, settings: ClassifierConfig, levels: tuple[float, ...]) -> Rehearsal:
        lesson = classifier_lesson(self.data, self.config, levels, settings, self.device)
        return Rehearsal(*lesson, settings, self.device)

    def _classifier(self, settings: ClassifierConfig, levels: tuple[float, ...]) -> Pace:
        """The pace of a classifier; experts whose objective costs the same at their levels are timed once."""
        rehearsal = self._rehearsal(settings, levels)
        cost = rehearsal.cost()
        if cost not in self.paces:
            self.paces[cost] = _pace(rehearsal)
        return self.paces[cost]

    def parts(self) -> list[Part]:
        """All parts, round by round, but for those that are done."""
        found: list[Part | None] = []
        for number in range(self.config.rounds):
            prefix = f"{files.round_folder(number)}/" if number else ""
            if number:
                passes = self.images * self.config.finetune.votes
                found.append(self._voted(prefix + files.ROUTES, self.images, passes, passes, self.estimator_pass))
            found += [] if self.config.experts else self._networks(prefix, again=number > 0)
            found += self._labels(prefix)
            batch = self.config.estimator.batch_size
            found.append(self._trained(prefix + files.ESTIMATOR, lambda: self.estimator, self.labelled, batch))
            found.append(self._metrics(prefix))
        return [part for part in found if part is not None]

    def _networks(self, prefix: str, again: bool) -> list[Part | None]:
        """Classifiers of a round: on all images, then without those of each fold."""
        config, left = self.config, []
        settings, folds = config.classifier, config.labels.folds
        further = dataclasses.replace(settings, epochs=config.finetune.epochs)
        for fold in range(1 + folds):
            images = self.images - (self.labelled // folds if fold else 0)
            for level, name in enumerate(files.classifier_names(config, fold)):
                levels = (config.sigmas[level],) if settings.experts else config.sigmas
                if settings.experts or not level:  # a shared one is one network
                    first = settings.at(level, len(config.sigmas))
                    pace = partial(self._classifier, further if again else first, levels)
                    left.append(self._trained(prefix + name, pace, images, settings.batch_size))
        return left

    def _trained(self, name: str, pace: Callable[[], Pace], images: int, batch: int) -> Part | None:
        if self._finished(name):
            return None
        there = self.find(name)
        done = load_checkpoint(there).epoch if there else 0
        return Part(name, TRAINING, *pace().seconds(images, batch, done))

    def _finished(self, name: str) -> bool:
        there = self.find(name)
        return there is not None and load_checkpoint(there).finished

    def _labels(self, prefix: str) -> list[Part | None]:
        """Labels of a round; an estimator that is there needs none."""
        if self._finished(prefix + files.ESTIMATOR):
            return []
        config, folds = self.config, self.config.labels.folds
        images = self.labelled // max(folds, 1)
        most = images * config.labels.votes * len(config.sigmas)
        least = images * fewest_passes(config.labels) * len(config.sigmas)
        names = [prefix + files.label_folder(fold) for fold in (range(1, folds + 1) if folds else (0,))]
        return [self._voted(name, images, least, most, self.classifier_pass) for name in names]

    def _voted(self, name: str, images: int, least: int, most: int, each: Span) -> Part | None:
        """Votes of `images` images, of which some shards may be there."""
        size = self.config.labels.shard
        shards = -(-images // size)
        missing = sum(self.find(f"{name}/{number:05d}.npy") is None for number in range(shards)) / shards
        low, high = least * each[0] * missing, most * each[1] * missing
        return Part(name, VOTES, low, high * MARGIN) if missing else None

    def _metrics(self, prefix: str) -> Part:
        images = min(self.config.metrics.images, self.config.validation)
        each = images * passes_an_image(self.config)
        low, high = (
            each * (router + len(self.config.sigmas) * classifier)
            for router, classifier in zip(self.estimator_pass, self.classifier_pass, strict=True)
        )
        return Part(f"{prefix}metrics", VOTES, low, high * MARGIN)

    def _vote_seconds(self, voter: Voter) -> Span:
        """Seconds of a vote, with as many threads at work as the run has."""
        rows = np.arange(min(_IMAGES, self.images))
        images = np.asarray(self.data.images[rows])

        def votes(number: int) -> None:
            voter.votes_of_many(images, self.config.sigma_e, _COPIES, np.random.default_rng(number))

        times = []
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                list(pool.map(votes, range(self.threads)))
                times.append((time.perf_counter() - start) / (self.threads * _COPIES * len(rows)))
        return span_of(times[1:])


def _pace(rehearsal: Rehearsal) -> Pace:
    """The pace of a training that is tried out."""
    steps: list[Span] = []
    for phase in rehearsal.phases():
        steps += [span_of(rehearsal.step_times(phase[0]))] * len(phase)
    each = rehearsal.seconds_a_pass() if any(rehearsal.reviews) else 0.0
    return Pace(tuple(steps), tuple(each * passes for passes in rehearsal.reviews))


def _voter(rehearsal: Rehearsal, data: TrainingData) -> Voter:
    return voter_of(rehearsal.network.cpu().eval(), data.input_shape)
