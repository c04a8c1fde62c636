"""Other runs and bundles whose classifiers vote beside those of the first: each level is the mean of their logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.export.members import Ensemble, Member
from dualsmooth.runtime.bundle.reading import MANIFEST, BaseModel, Bundle, read_bundle
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.run.borrow import story_of
from dualsmooth.training.run.record import Run, load_run, read_record
from dualsmooth.training.run.sources import Source as RunSource
from dualsmooth.training.run.sources import trained


@dataclass(frozen=True)
class Voices:
    """The networks that a source adds at its levels, and for the provenance what they are."""

    members: Mapping[float, tuple[Member, ...]]
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    story: dict[str, Any]


def ensemble_of(bundle: Bundle, model: BaseModel) -> Ensemble:
    """A base model of a bundle as it is exported again."""
    return Ensemble(tuple(bundle.path / name for name in model.members), model.consensus)


def beside(
    first: Bundle | Run, classifiers: Sequence[Member | Ensemble], others: Sequence[str | Path]
) -> tuple[list[Member | Ensemble], dict[str, Any]]:
    """The classifier of each level of `first` with those that `others` have for it, and the provenance of these.

    Each of `others` is a bundle, a finished run, or RUN=SIGMA,… for the trained experts of these levels. A classifier
    without others stays as it is. Certificates are about the ensemble, whatever its members were trained for. Raises
    `InputError` for what has other classes, images or levels, and for ensembles that do not average all members.
    """
    voices = [_voices(str(other)) for other in others]
    for other, voice in zip(others, voices, strict=True):
        _check(str(other), voice, first)
    joined: list[Member | Ensemble] = []
    for level, model in zip(first.sigmas, classifiers, strict=True):
        more = [member for voice in voices for member in voice.members.get(level, ())]
        joined.append(Ensemble((*_averaged(model, first.path), *more)) if more else model)
    return joined, {"beside": [voice.story for voice in voices]} if voices else {}


def _averaged(model: Member | Ensemble, where: Path) -> tuple[Member, ...]:
    """The members of a model whose vote is the mean of all."""
    if not isinstance(model, Ensemble):
        return (model,)
    if model.consensus:
        raise InputError(f"{where} decides by consensus of its first {model.consensus}; others cannot vote beside it")
    return model.members


def _voices(text: str) -> Voices:
    source = RunSource.parsed(text)
    if (Path(text) / MANIFEST).is_file():
        return _of_bundle(read_bundle(text))
    if source.levels:
        return _of_experts(source)
    if source.estimator:
        raise InputError(f"--with {text}: classifiers vote side by side, one estimator routes; pass RUN or RUN=SIGMA,…")
    run = load_run(source.path)
    members = {level: (network,) for level, network in zip(run.sigmas, run.classifiers, strict=True)}
    names = {str(name): source.path / str(name) for name in run.record["classifiers"]}
    return Voices(members, run.classes, run.input_shape, story_of(source.path, names))


def _of_bundle(bundle: Bundle) -> Voices:
    models = zip(bundle.sigmas, bundle.classifiers, strict=True)
    members = {level: _averaged(ensemble_of(bundle, model), bundle.path) for level, model in models}
    story = {"manifest_sha256": bundle.manifest_sha256, "provenance": bundle.provenance}
    return Voices(members, bundle.classes, bundle.input_shape, story)


def _of_experts(source: RunSource) -> Voices:
    """Experts of levels by name; the rest of their run need not be finished."""
    record = read_record(source.path)
    if record is None:
        raise InputError(f"--with {source.text}: {source.path} is not a run directory; pass the --out of a run")
    names = dict(zip(record["sigmas"], record["classifiers"], strict=True))
    members, files = {}, {}
    for level in source.levels:
        if level not in names:
            raise InputError(f"--with {source.text}: the run has the levels {_listed(names)}; expected {level:g} there")
        members[level] = (trained(source, names[level]).network(),)
        files[names[level]] = source.path / names[level]
    return Voices(members, tuple(record["classes"]), tuple(record["input_shape"]), story_of(source.path, files))


def _check(text: str, voice: Voices, first: Bundle | Run) -> None:
    def need(ok: bool, found: str, expected: str) -> None:
        if not ok:
            raise InputError(f"--with {text} {found}; expected {expected}, as {first.path} has it")

    need(voice.classes == first.classes, "has other classes, or in another order", f"{len(first.classes)} alike")
    shape = list(first.input_shape)
    need(list(voice.input_shape) == shape, f"takes images {list(voice.input_shape)}", str(shape))
    foreign = [level for level in voice.members if level not in first.sigmas]
    need(not foreign, f"has classifiers at {_listed(foreign)}", f"levels among {_listed(first.sigmas)}")


def _listed(levels: Any) -> str:
    return ", ".join(f"{level:g}" for level in levels)
