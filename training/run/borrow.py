"""What one run may take over from another: the finished stages that its configuration leaves the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of, write_atomically
from dualsmooth.training.config import ClassifierConfig, Config, config_from, read_toml
from dualsmooth.training.run import record as files
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.run.history import copy_history

_EVERYTHING = ("dataset", "validation", "seed", "augment", "experts", "classes", "classifier")


@dataclass(frozen=True)
class Offer:
    """What the run `source` gives to another: its `files` by their names in that one, and what the record says."""

    source: Path
    files: dict[str, Path]
    story: dict[str, Any]


def offered(source: Path, config: Config) -> Offer:
    """What the run `source` has of a run with `config`: files of first-round classifiers, labels and estimator.

    A stage is taken over where every setting that it depends on is the same. Experts are taken level by level, so that
    a run with other `sigmas` finds those it shares. Raises `InputError` where `source` is not a run, or has nothing to
    offer.
    """
    path = source / files.CONFIG
    if not path.is_file():
        raise InputError(f"{source} is not a run directory (no {files.CONFIG}); pass the --out of an earlier run")
    given = config_from(read_toml(path), str(path))
    same = all(getattr(given, key) == getattr(config, key) for key in _EVERYTHING) and not config.experts
    levels = same and given.sigmas == config.sigmas
    folds = range(1 + (config.labels.folds if _folds_alike(given, config) else 0))
    names: list[str] = []
    alone = same and config.classifier.experts and not config.classifier.chain
    for fold in folds if levels or alone else ():
        there = _classifiers(given, fold)
        names += [name for name, settings in _classifiers(config, fold).items() if there.get(name) == settings]
    if levels and given.labels == config.labels:
        folders = [files.label_folder(fold) for fold in folds]
        names += [str(shard.relative_to(source)) for f in folders for shard in sorted((source / f).glob("*.npy"))]
        if given.estimator == config.estimator and given.sigma_e == config.sigma_e:
            names.append(files.ESTIMATOR)
    taken = {name: source / name for name in names if _finished(source / name)}
    if not taken:
        raise InputError(f"run {source} has no finished stage that this configuration shares; leave --from out")
    return Offer(source, taken, story_of(source, taken))


def story_of(source: Path, taken: Mapping[str, Path], asked: str = "") -> dict[str, Any]:
    """What the record says about files that are `taken` from a run: its path, the files with SHA-256, its sessions, and
    what it had taken over itself; and what was `asked` for by name, which its configuration need not share."""
    record = files.read_record(source) or {}
    before = {"borrowed": record["borrowed"]} if "borrowed" in record else {}
    digests = _in_short({name: sha256_of(path) for name, path in taken.items()})
    story = {"path": str(source), "files": digests, "sessions": record.get("sessions", []), **before}
    return {**story, "asked": asked} if asked else story


def take_over(offer: Offer, root: Path) -> None:
    """Copy the files of an offer into the run `root`, and what the histories of its source say about its networks."""
    for name, path in offer.files.items():
        if path.suffix == ".pt":
            copy_history(path, root / name)
        (root / name).parent.mkdir(exist_ok=True)
        write_atomically(root / name, path.read_bytes())


def _in_short(taken: dict[str, str]) -> dict[str, str]:
    """SHA-256 by file; the shards of one folder of labels count as one file, whose hash is that of their hashes."""
    shards: dict[str, list[str]] = {}
    for name, digest in taken.items():
        kind = str(Path(name).parent / "*.npy") if name.endswith(".npy") else name
        shards.setdefault(kind, []).append(digest)
    return {
        kind: hashlib.sha256("".join(found).encode()).hexdigest() if kind.endswith(".npy") else found[0]
        for kind, found in shards.items()
    }


def _classifiers(config: Config, fold: int) -> dict[str, ClassifierConfig]:
    """How the network of each file is first trained: that of a level depends on whether others are below and above."""
    names = files.classifier_names(config, fold)
    return {name: config.classifier.at(level, len(names)) for level, name in enumerate(names)}


def _folds_alike(a: Config, b: Config) -> bool:
    """Whether the folds of both cut the same images the same way."""
    return (a.labels.folds, a.labels.images) == (b.labels.folds, b.labels.images)


def _finished(path: Path) -> bool:
    return path.is_file() and (path.suffix != ".pt" or load_checkpoint(path).finished)
