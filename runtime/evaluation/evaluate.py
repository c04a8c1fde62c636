"""Certify a data set: append to a results file, resume after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.evaluation.results import Result, coarser_of, sampled_levels
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Noise, Seed
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE, GroupsGiven, Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.budgets import Budget


class Finished(NamedTuple):
    """One certified image of the data set, and the seconds of its own work (`Meter`, `Turns`)."""

    image: int
    certificate: Certificate
    seconds: float


class Workers(Protocol):
    """Who certifies the images: this process, or a cluster. Results may come in any order; each index once."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def provider(self) -> str: ...

    def certify(self, dataset: Dataset, indices: Sequence[int], settings: Settings) -> Iterator[Finished]: ...


@dataclass(frozen=True)
class Local:
    """Certifies in this process; `watch` is called with the meter after every batch."""

    smoother: Smoother
    watch: Callable[[Meter], None] | None = None

    @property
    def bundle(self) -> Bundle:
        return self.smoother.bundle

    @property
    def provider(self) -> str:
        return self.smoother.engine.provider

    def certify(self, dataset: Dataset, indices: Sequence[int], settings: Settings) -> Iterator[Finished]:
        meter = Meter(watch=self.watch)
        images = (dataset.images[i] for i in indices)
        stream = self.smoother.certify_with(images, settings, indices=indices, meter=meter)
        for index in indices:
            try:
                certificate = next(stream)
            except EngineError as error:
                raise EngineError(f"image {index}: {error}") from error
            yield Finished(index, certificate, round(meter.last, 6))


def evaluate(
    smoother: Smoother | Workers,
    dataset: Dataset,
    out: str | Path,
    *,
    indices: Sequence[int],
    alpha: float = ALPHA,
    budget: Budget | None = None,
    rule: str = RULE,
    route: str | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    groups: GroupsGiven = False,
    at_most: int = 1,
    mode: str | None = None,
    r: float | None = None,
    all_levels: bool = False,
    progress: Callable[[Result, int, int], None] | None = None,
    opened: Callable[[ResultsWriter], None] | None = None,
) -> ResultsWriter:
    """Certify `dataset.images[indices]`, each once, and append each result to `out` as soon as it is there, with
    confidence 1 - alpha of its own. True labels count the bundle's classes, matched by name (`Dataset.fitted`). What is
    asked of an image is as for `Smoother.certify`.

    Indices that `out` already holds are left alone. An image whose certificate was lost on the way (a kill, a dead
    worker) gets the noise that it had: the run's seed is in the file before the first pass. `progress` gets each
    result, how many are done and how many there are; `opened` gets the writer before the first image. Returns the
    (closed) writer. Raises `InputError`.
    """
    workers = Local(smoother) if isinstance(smoother, Smoother) else smoother
    bundle = workers.bundle
    indices = list(dict.fromkeys(map(int, indices)))
    outside = [i for i in indices if not 0 <= i < len(dataset)]
    if outside:
        raise InputError(f"index {outside[0]} is outside of {dataset.name}; expected 0 to {len(dataset) - 1}")
    dataset = dataset.fitted(bundle.classes, bundle.input_shape, preprocessing=bundle.preprocessing)
    noise = (noise or DEFAULT_NOISE).suited(np.empty(0, np.uint8), bundle.noise_levels)  # as data sets are
    settings = Settings.of(
        alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups, at_most=at_most,
        mode=mode, r=r, all_levels=all_levels,
    )  # fmt: skip
    writer = ResultsWriter(out, _configuration(workers, dataset, settings), Seed.make(seed, noise))
    settings = replace(settings, seed=writer.seed)  # which the file holds: what is done again draws the same votes
    try:
        if opened:
            opened(writer)
        _require_same_truths(writer, dataset, bundle)
        todo = [i for i in indices if i not in writer.done]
        finished = len(indices) - len(todo)
        for index, certificate, seconds in workers.certify(dataset, todo, settings) if todo else ():
            result = Result(index, int(dataset.labels[index]), dataset.name, seconds, certificate)
            writer.append(result)
            finished += 1
            if progress:
                progress(result, finished, len(indices))
    finally:
        writer.close()
    return writer


def _require_same_truths(writer: ResultsWriter, dataset: Dataset, bundle: Bundle) -> None:
    """Raises `InputError` where the file holds an image with another true label than the data set."""
    for index, label in writer.truths.items():
        if index < len(dataset) and label != dataset.labels[index]:
            raise InputError(
                f"{writer.path} holds image {index} with true label {label}, and {dataset.name} says "
                f"{dataset.labels[index]} ({bundle.classes[dataset.labels[index]]}); choose another file with --out"
            )


def _configuration(workers: Workers, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """What must be the same for all rows of a file; see `results.configuration_of`."""
    bundle = workers.bundle
    terms, seed = settings.terms(bundle), settings.seed
    return {
        "version": terms.edition,
        "dataset": dataset.name,
        "alpha": terms.alpha,
        "rule": str(terms.rule),
        "route": terms.route_kind,
        "budget": str(terms.budget),
        **coarser_of(terms.coarser_dict()),
        "manifest": bundle.manifest_sha256,
        "provider": workers.provider,
        "seed": f"{seed:032x}" if isinstance(seed, int) else None,
        "noise": str(settings.noise),
        "levels": sampled_levels(len(bundle.sigmas), None if settings.all_levels else (), rule=str(terms.rule)),
        "derived": None,
    }


def choose_indices(
    size: int,
    *,
    skip: int = 1,
    most: int | None = None,
    indices: Sequence[int] | None = None,
    shard: tuple[int, int] | None = None,
) -> list[int]:
    """Which images of a data set of `size` to certify: every `skip`-th below `most`, or the given ones, each once.

    `shard = (i, n)` keeps the i-th of n equal parts, i from 1: each n-th image, so that all parts take about as long.
    Raises `InputError`.
    """
    if skip < 1 or (most is not None and most < 1):
        raise InputError(f"--skip {skip} --max {most}; expected positive integers")
    chosen = range(0, min(size, most or size), skip) if indices is None else dict.fromkeys(indices)
    if shard is None:
        return list(chosen)
    part, parts = shard
    if not 1 <= part <= parts:
        raise InputError(f"--shard {part}/{parts}; expected i/n with 1 <= i <= n, e.g. 1/4 to 4/4")
    return list(chosen)[part - 1 :: parts]
