"""Several runs that a new one is put together from: what each gives, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import Config, config_from, read_toml
from dualsmooth.training.run import record as files
from dualsmooth.training.run.borrow import Offer, offered, story_of
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint

Borrowed = dict[str, Any] | list[dict[str, Any]]
"""How a record tells what was taken over: a story, or a list of them where there are several sources."""

_SPLIT = ("dataset", "seed", "validation")


@dataclass(frozen=True)
class Source:
    """A run, as `--from` names it: alone, for the stages that the configurations share; or with the `levels` whose
    experts are wanted, or its `estimator`, however they were trained.

    >>> Source.parsed("runs/a=0.25,0.5").levels, Source.parsed("runs/b=estimator").estimator
    ((0.25, 0.5), True)
    """

    text: str
    path: Path
    levels: tuple[float, ...] = ()
    estimator: bool = False

    @staticmethod
    def parsed(text: str | Path) -> Source:
        """RUN, RUN=SIGMA,… or RUN=estimator."""
        path, equals, wanted = str(text).rpartition("=")
        if equals and wanted == "estimator":
            return Source(str(text), Path(path), estimator=True)
        try:
            levels = tuple(float(part) for part in wanted.split(",")) if equals else ()
        except ValueError:
            levels = ()
        return Source(str(text), Path(path if levels else text), levels)

    @property
    def picked(self) -> bool:
        """Whether it says what is wanted."""
        return self.estimator or bool(self.levels)


def gathered(
    sources: Sequence[Source], config: Config, classes: Sequence[str], shape: Sequence[int]
) -> list[Offer]:  # fmt: skip
    """What each source gives to a run with `config` on images `shape` of `classes`; of what several have, the first.

    Experts that were picked have no labels yet, so that no source gives labels then, nor an estimator that was not
    picked. Raises `InputError` for what does not fit, and for a source that gives nothing.
    """
    asked = any(source.levels for source in sources)
    offers: list[Offer] = []
    for source in sources:
        offer = _picked(source, config, classes, shape) if source.picked else offered(source.path, config)
        there = {name for other in offers for name in other.files}
        new = {
            name: path
            for name, path in offer.files.items()
            if name not in there and (source.picked or not asked or _is_classifier(name))
        }
        if not new:
            raise InputError(f"run {source.text} gives nothing that the others do not give; leave it out of --from")
        offers.append(Offer(source.path, new, story_of(source.path, new, source.text if source.picked else "")))
    return offers


def _is_classifier(name: str) -> bool:
    return name.endswith(".pt") and name != files.ESTIMATOR


def _picked(source: Source, config: Config, classes: Sequence[str], shape: Sequence[int]) -> Offer:
    """The networks that a source was asked for, by their names in the new run."""
    path = source.path / files.CONFIG
    record = files.read_record(source.path) if path.is_file() else None
    if record is None:
        raise InputError(f"{source.path} is not a run directory (no {files.RECORD}); pass the --out of an earlier run")
    given = config_from(read_toml(path), str(path))
    _fits(source, given, record, config, classes, shape)
    names = [str(record["estimator"])] if source.estimator else []
    if source.levels:
        of_level = dict(zip(given.sigmas, record["classifiers"], strict=True))
        names = [str(of_level[level]) for level in source.levels]
    taken = {}
    for name in names:
        checkpoint = trained(source, name)
        taken[Path(name).name] = source.path / name
        wanted = config.estimator if source.estimator else config.classifier
        found = (checkpoint.spec.name, checkpoint.spec.width, checkpoint.spec.depth)
        if found != (wanted.model, wanted.width, wanted.depth):
            raise InputError(
                f"{source.path / name} is a {found[0]} of width {found[1]:g} and depth {found[2]:g}; expected a "
                f"{wanted.model} of {wanted.width:g} and {wanted.depth:g}; say so in the configuration"
            )
    return Offer(source.path, taken, {})


def trained(source: Source, name: str) -> Checkpoint:
    """A network of a source by its file's name. Raises `InputError` where it is not trained to its end."""
    checkpoint = load_checkpoint(source.path / name)
    if not checkpoint.finished:
        raise InputError(f"{source.path / name} is not trained to its end; go on with --out {source.path} first")
    return checkpoint


def _fits(
    source: Source, given: Config, record: dict[str, Any], config: Config, classes: Sequence[str], shape: Sequence[int]
) -> None:  # fmt: skip
    """Raise `InputError` where networks of a run cannot serve: other classes, images, levels or held-out images."""

    def need(ok: bool, found: str, expected: str) -> None:
        if not ok:
            raise InputError(f"run {source.path} {found}; expected {expected}; choose another run for --from")

    there, here = list(record["classes"]), list(classes)
    need(there == here, f"has the classes {_few(there)}", f"{_few(here)}, in this order")
    need(list(record["input_shape"]) == list(shape), f"takes images {record['input_shape']}", str(list(shape)))
    for key in _SPLIT:
        old, new = getattr(given, key), getattr(config, key)
        need(old == new, f"has {key} {old!r}, so that its held-out images are others", f"{new!r}")
    if source.estimator:
        found = f"routes between {_levels(given.sigmas)} at sigma_e {given.sigma_e:g}"
        same = (given.sigmas, given.sigma_e) == (config.sigmas, config.sigma_e)
        need(same, found, f"{_levels(config.sigmas)} at {config.sigma_e:g}")
        need(config.rounds == 1, "was asked for its estimator", "that with rounds = 1 only")
        return
    need(config.classifier.experts and not config.experts, "was asked for experts", "classifier.experts = true")
    need(config.labels.folds == 0, "was asked for experts", "that without labels.folds only")
    missing = [level for level in source.levels if level not in given.sigmas]
    need(given.classifier.experts and not given.experts, "has no expert for each level", "classifier.experts = true")
    need(not missing, f"has experts at {_levels(given.sigmas)}", f"{_levels(missing)} among them")
    foreign = [level for level in source.levels if level not in config.sigmas]
    need(not foreign, f"was asked for its expert at {_levels(foreign)}", f"one of sigmas {_levels(config.sigmas)}")


def _levels(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:g}" for sigma in sigmas)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def told(offers: Sequence[Offer]) -> Borrowed:
    """What the record says about offers."""
    stories = [offer.story for offer in offers]
    return stories[0] if len(stories) == 1 else stories


def named_in(borrowed: Borrowed) -> list[str]:
    """The sources that a record tells of, as they were named."""
    return [str(story.get("asked", story["path"])) for story in _stories(borrowed)]


def digests_in(borrowed: Borrowed) -> list[dict[str, str]]:
    """The files of each source, with their SHA-256."""
    return [story["files"] for story in _stories(borrowed)]


def picked_of(borrowed: Borrowed | None) -> frozenset[str]:
    """The networks that were asked for by name, by their names in the run."""
    return frozenset(name for story in _stories(borrowed) if "asked" in story for name in story["files"])


def _stories(borrowed: Borrowed | None) -> list[dict[str, Any]]:
    return borrowed if isinstance(borrowed, list) else [borrowed] if borrowed else []
