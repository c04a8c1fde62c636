"""What can be exported from the command line: a training run, another bundle, or files of networks and a few facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualsmooth.export.beside import beside, ensemble_of
from dualsmooth.export.bundle import export_bundle
from dualsmooth.export.members import Ensemble, Member
from dualsmooth.export.onnx.files import shape_of
from dualsmooth.export.onnx.normalisation import Normalisation
from dualsmooth.export.run import export_run, made_by
from dualsmooth.runtime.bundle.reading import MANIFEST, Bundle, read_bundle
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.graphs.foreign_files import foreign
from dualsmooth.training.networks.architectures import ARCHITECTURES, architecture
from dualsmooth.training.networks.published import load_checkpoint
from dualsmooth.training.networks.state_dict import is_checkpoint
from dualsmooth.training.run.record import Run, load_run


@dataclass(frozen=True)
class OnnxFiles:
    """Existing files (several for a model: an ensemble), and what they do not say themselves.

    They are ONNX files, or checkpoints of PyTorch where `architectures` names the network of their role ("estimator",
    "classifier"; `key` as for `load_checkpoint`). `normalise` as for `export_bundle`. Where there is one sigma and no
    router, `estimator` is empty and `sigma_e` None.
    """

    estimator: Sequence[str]
    classifiers: Sequence[Sequence[str]]
    sigmas: Sequence[float]
    sigma_e: float | None
    classes: Sequence[str]
    input_shape: tuple[int, int, int] | None = None
    normalise: Mapping[str, Normalisation] = field(default_factory=dict)
    architectures: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    consensus: int = 0
    layout: str = "nchw"


def classes_and_shape(source: Path | OnnxFiles) -> tuple[Sequence[str], tuple[int, int, int]]:
    """The names of the classes and the shape [C,H,W] of the images of what is to be exported. Raises as
    `export_source`."""
    if isinstance(source, OnnxFiles):
        return source.classes, source.input_shape or _shape(source)
    facts: Bundle | Run = read_bundle(source) if (source / MANIFEST).exists() else load_run(source)
    return facts.classes, facts.input_shape


def export_source(
    source: Path | OnnxFiles, out: str | Path, *, command: str, others: Sequence[str | Path] = (), **settings: Any
) -> Bundle:
    """Export a run directory, a bundle or ONNX files; `settings` as for `export_bundle`, and `others` as `beside` takes
    them (files say by themselves who votes side by side). Raises as `export_bundle`."""
    if isinstance(source, OnnxFiles):
        if others:
            raise InputError("--with goes with a run or bundle as SOURCE; give --classifier several files, with commas")
        return _export_files(source, out, command, settings)
    if (source / MANIFEST).exists():
        return _export_again(read_bundle(source), out, command, others, settings)
    return export_run(source, out, command=command, others=others, **settings)


def in_fp32(source: Path | OnnxFiles, folder: Path, others: Sequence[str | Path] = ()) -> Path:
    """An fp32 bundle of `source` and `others`: itself where it is a bundle alone, else one that is made in `folder`."""
    if isinstance(source, Path) and (source / MANIFEST).exists() and not others:
        return source
    return export_source(source, folder / "fp32", command="fp32 for comparison", others=others).path


def _export_files(files: OnnxFiles, out: str | Path, command: str, settings: dict[str, Any]) -> Bundle:
    lists = list(files.classifiers) * len(files.sigmas) if len(files.classifiers) == 1 else list(files.classifiers)
    paths = sorted({path for members in (files.estimator, *lists) for path in members})
    for path in paths:
        if not Path(path).is_file():
            raise InputError(foreign(Path(path)) or f"{path} is not a file; pass an ONNX file")
    if files.input_shape is not None and (len(files.input_shape) != 3 or min(files.input_shape) < 1):
        raise InputError(f"--input-shape is {list(files.input_shape)}; expected C,H,W, e.g. 3,32,32")

    shape = files.input_shape or _shape(files)
    opened: dict[tuple[str, str], Member] = {}

    def ensemble(role: str, members: Sequence[str]) -> Ensemble:
        for path in members:
            if (role, path) not in opened:
                opened[role, path] = _network(files, role, path, shape)
        return Ensemble(tuple(opened[role, path] for path in members), files.consensus if len(members) > 1 else 0)

    return export_bundle(
        out,
        estimator=ensemble("estimator", files.estimator) if files.estimator else None,
        classifiers=[ensemble("classifier", members) for members in lists],
        sigmas=files.sigmas,
        sigma_e=files.sigma_e,
        classes=files.classes,
        input_shape=shape,
        normalise={role: each for role, each in files.normalise.items() if role not in files.architectures},
        layout=files.layout,
        provenance={
            "source": {Path(path).name: sha256_of(path) for path in paths},
            **({"architectures": dict(files.architectures)} if files.architectures else {}),
            "export": made_by(command),
        },
        **settings,
    )


def _shape(files: OnnxFiles) -> tuple[int, int, int]:
    for role, paths in (("estimator", files.estimator), ("classifier", files.classifiers[0])):
        if paths and role not in files.architectures and not is_checkpoint(paths[0]):
            return shape_of(paths[0], files.layout)
    raise InputError("checkpoints do not say which images they take; pass --input-shape C,H,W, e.g. 3,32,32")


def _network(files: OnnxFiles, role: str, path: str, shape: tuple[int, int, int]) -> Member:
    """The network in a file: the path itself of an ONNX file, the module that a checkpoint fills."""
    if role not in files.architectures:
        if is_checkpoint(path):
            raise InputError(
                f"{path} is a PyTorch checkpoint, which holds no architecture; name it with --{role}-arch: "
                f"{ARCHITECTURES}; or export the network in Python with dualsmooth.export.load_checkpoint"
            )
        return Path(path)
    outputs = len(files.sigmas if role == "estimator" else files.classes)
    mean, std = files.normalise.get(role, (None, None))
    return load_checkpoint(
        path, architecture(files.architectures[role], outputs, shape), key=files.key, mean=mean, std=std
    )


def _export_again(
    bundle: Bundle, out: str | Path, command: str, others: Sequence[str | Path], settings: dict[str, Any]
) -> Bundle:
    """Another precision of a bundle, other facts in its manifest, or more classifiers. Its provenance goes along."""
    wanted = settings.get("precision", "fp32")
    if bundle.precision not in ("fp32", wanted):
        raise InputError(
            f"{bundle.path} is {bundle.precision}; only an fp32 bundle can be brought to {wanted}; export that one, or "
            f"add --precision {bundle.precision}"
        )
    own = [ensemble_of(bundle, model) for model in bundle.classifiers]
    classifiers, voices = beside(bundle, own, others)
    dropped = ("exported_with", "export", "parity", "precision", *(("metrics",) if others else ()))
    kept = {k: v for k, v in bundle.provenance.items() if k not in dropped}
    before = ("exported_with", "export", "parity", *(("precision",) if bundle.precision == wanted != "fp32" else ()))
    return export_bundle(
        out,
        estimator=None if bundle.estimator is None else ensemble_of(bundle, bundle.estimator),
        classifiers=classifiers,
        sigmas=bundle.sigmas,
        sigma_e=bundle.sigma_e,
        classes=bundle.classes,
        input_shape=bundle.input_shape,
        **(_taken_over(bundle) | settings),
        provenance={
            **kept,
            "source": {
                "manifest_sha256": bundle.manifest_sha256,
                **{k: bundle.provenance[k] for k in before if k in bundle.provenance},
            },
            **voices,
            "export": made_by(command),
        },
    )


def _taken_over(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says of its classes and images, unless it is said anew."""
    how = bundle.preprocessing
    resizing = {} if how is None else {"resize": how.resize, "resampling": how.resampling}
    return {"groups": bundle.groups, "sure": bundle.sure, **resizing}
