"""Networks to a bundle: brought to the contract, compared with the original, written aside, checked, then moved."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import torch
from onnx import external_data_helper
from torch import nn

from dualsmooth.export import ROLES
from dualsmooth.export.card import CARD, model_card
from dualsmooth.export.checks.agreement import FLOORS, Pictures, agreement, check_floor
from dualsmooth.export.checks.parity import check_rows, compare
from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.graph import check_file, to_model
from dualsmooth.export.onnx.modules import normalised, takes_sigma
from dualsmooth.export.onnx.normalisation import Normalisation, Statistics, check_statistics
from dualsmooth.export.onnx.precision import emulated, to_half, to_int8
from dualsmooth.export.onnx.sessions import opened
from dualsmooth.runtime.bundle.reading import (
    MANIFEST,
    BaseModel,
    Bundle,
    manifest_text,
    parse_manifest,
    read_bundle,
)
from dualsmooth.runtime.datasets.dataset import in_words
from dualsmooth.runtime.engine.trial import safe_level
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.runtime.files import open_to_all_but_umask, sha256_of, sync_folder, write_atomically
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.precision import overall, precision_of
from dualsmooth.runtime.noise.levels import require_unit_scale

TARGETS = ("fp32", "fp16", "bf16", "int8")
"""Precisions that networks are converted to."""

Network = nn.Module | str | Path
"""A PyTorch module, or the path of an ONNX file."""

EXTERNAL_ABOVE = 1 << 30
"""Weights of more bytes than this go into a second file beside the graph; a graph cannot hold more than 2 GiB."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Networks whose logits are averaged; with `consensus` K, the first K decide alone where they agree."""

    members: tuple[Network, ...]
    consensus: int = 0


Source = Network | Ensemble


def export_bundle(
    out: str | Path,
    *,
    estimator: Source,
    classifiers: Sequence[Source],
    sigmas: Sequence[float],
    sigma_e: float,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    provenance: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    pictures: Pictures | None = None,
    floor: float | None = None,
    force: bool = False,
    normalise: Mapping[str, Normalisation] = MappingProxyType({}),
    mean: Statistics | None = None,
    std: Statistics | None = None,
    layout: str = "nchw",
    quantise_ends: bool = False,
    reduce_range: bool = False,
    external_above: int = EXTERNAL_ABOVE,
    parity_batches: Sequence[int] = (1, 3, 257),
) -> Bundle:
    """Export `estimator` ([N,C,H,W] to [N,len(sigmas)]) and the classifier of each sigma ([N,len(classes)]) to `out`.

    A network is a module, an ONNX file, or an `Ensemble` of them. They take noisy images in [0, 1] units, unnormalised:
    normalisation belongs inside, and `normalise` puts it in front of networks that lack it: "estimator" or "classifier"
    to (mean, std), each one number a channel, or one for all (`mean` and `std` alone are refused: they do not say whose
    they are). `layout` "nhwc" puts a transpose in front of ONNX files that take channels last. Modules whose `forward`
    has a second parameter `sigma` get the noise level. One that serves several sigmas is passed several times and
    becomes one file. `out` must not exist, or be empty; it appears complete or not at all.

    `precision` is fp32, fp16, bf16 or int8. The others are compared with fp32 under noise at each level, on held-out
    `pictures` (on random images without), and refused where the arg max agrees on less than `floor` (by default
    `FLOORS`), unless `force`. int8 needs `pictures` to calibrate on, and keeps the first and last layers in float32
    unless `quantise_ends`; `reduce_range` leaves weights 7 bits, so that sums do not saturate on processors without
    int8 dot products (VNNI). `provenance` is recorded in the manifest, with versions, parity and agreement. Raises
    `InputError` for arguments that do not fit, `BundleError` where a network cannot be exported.
    """
    root = Path(out)
    levels = tuple(float(s) for s in sigmas)
    require_unit_scale((*levels, float(sigma_e)), "sigmas and sigma_e")
    _check(root, classifiers, levels, precision, pictures, floor, input_shape)
    if mean is not None or std is not None:
        raise InputError(
            "mean and std do not say for which network they are; pass normalise={'classifier': (mean, std)}, and "
            "'estimator' too where it expects normalised images"
        )
    for role, statistics in normalise.items():
        if role not in ROLES:
            raise InputError(f"normalise has {role!r}; expected {' and '.join(ROLES)}")
        check_statistics(*statistics, input_shape[0], f"{role} ")
    plan = _Plan(levels, float(sigma_e), len(classes), input_shape)
    models = plan.add("estimator", [estimator]) + plan.add("classifier", classifiers)
    manifest: dict[str, Any] = {
        "sigmas": levels,
        "sigma_e": float(sigma_e),
        "classes": tuple(classes),
        "input_shape": input_shape,
        "estimator": models[0],
        "classifiers": tuple(models[1:]),
        "precision": precision,
    }
    _check_manifest(manifest, plan.files)

    parity: dict[str, float] = {}
    graphs: dict[str, onnx.ModelProto] = {}
    for name, (network, outputs, seen) in plan.files.items():
        mean, std = normalise.get(next(role for role in ROLES if name.startswith(role)), (None, None))
        if isinstance(network, nn.Module):
            network = network if mean is None else normalised(network, mean, std)
            graphs[name] = to_model(network, input_shape)
            with opened(graphs[name], name) as session:
                told = seen if takes_sigma(network) else seen[-1:]
                worst = compare(network, session, input_shape, outputs, told, name, parity_batches)
            parity[name] = float(f"{worst:.3g}")
        else:
            graphs[name] = load_onnx(network, input_shape, mean=mean, std=std, layout=layout)
        check_rows(graphs[name], input_shape, outputs, seen[-1], plan.label(name))
    converted, report = _convert(graphs, plan, precision, pictures, floor, force, quantise_ends, reduce_range)
    manifest["precision"] = overall(_own(graph) for graph in converted.values())
    files: dict[str, bytes] = {}
    for name, graph in converted.items():
        files.update(serialise(graph, name, external_above))
    details = {
        **(provenance or {}),
        **({"parity": parity} if parity else {}),
        **({"precision": report} if report else {}),
        "exported_with": {
            "torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": version_of_engine(),
        },
    }  # fmt: skip
    return write_bundle(root, files, provenance=details, **manifest)


def _check_manifest(manifest: Mapping[str, Any], files: Collection[str]) -> None:
    """Raises `InputError` where no reader would take what is to be exported, before any work is done."""
    hashes = dict.fromkeys(files, "0" * 64)
    try:
        parse_manifest(Path(), manifest_text(files=hashes, provenance={}, **manifest).encode())
    except BundleError as error:
        what = str(error).removeprefix(f"{MANIFEST}: ").removesuffix("; export the bundle again")
        raise InputError(f"such a bundle cannot be made: {what}") from error


class _Plan:
    """Which network becomes which file, how many logits it has, and which levels it will see."""

    def __init__(self, levels: tuple[float, ...], sigma_e: float, classes: int, shape: tuple[int, int, int]) -> None:
        self.levels, self.sigma_e, self.classes, self.shape = levels, sigma_e, classes, shape
        self.files: dict[str, tuple[Network, int, list[float]]] = {}

    def label(self, name: str) -> str:
        """What messages call the network of the file `name`: the user's file where it is one."""
        network = self.files[name][0]
        return name if isinstance(network, nn.Module) else str(network)

    def add(self, role: str, sources: Sequence[Source]) -> list[BaseModel]:
        """Plan the files of one stage; a network that occurs several times becomes one file."""
        estimator = role == "estimator"
        levels = (self.sigma_e,) if estimator else self.levels
        ensembles = [source if isinstance(source, Ensemble) else Ensemble((source,)) for source in sources]
        names: dict[Any, str] = {}
        shared = len({tuple(map(_identity, e.members)) for e in ensembles}) == 1
        models = []
        for ensemble, level in zip(ensembles, levels, strict=True):
            if not 0 <= ensemble.consensus <= len(ensemble.members) or not ensemble.members:
                raise InputError(
                    f"consensus is {ensemble.consensus}; expected 0 to {len(ensemble.members)}, the members"
                )
            members = []
            for i, network in enumerate(ensemble.members):
                stem = role if shared else f"{role}_{level:g}"
                member = f"_{i}" if len(ensemble.members) > 1 else ""
                name = names.setdefault(_identity(network), f"{stem}{member}.onnx")
                _, _, seen = self.files.setdefault(name, (network, len(self.levels) if estimator else self.classes, []))
                if level not in seen:
                    seen.append(level)
                members.append(name)
            models.append(BaseModel(tuple(members), ensemble.consensus))
        return models


def _identity(network: Network) -> Any:
    if isinstance(network, nn.Module):
        return id(network)
    if isinstance(network, str | Path):
        return str(Path(network).resolve())
    fix = "; fill its module with it, e.g. with dualsmooth.export.load_checkpoint" if isinstance(network, dict) else ""
    raise InputError(
        f"a network is a {type(network).__name__}; expected an nn.Module, an ONNX file's path, or Ensemble{fix}"
    )


def _convert(
    graphs: Mapping[str, onnx.ModelProto],
    plan: _Plan,
    precision: str,
    pictures: Pictures | None,
    floor: float | None,
    force: bool,
    quantise_ends: bool,
    reduce_range: bool,
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """The graphs in another precision, and how well they agree with the originals."""
    if precision == "fp32":
        return dict(graphs), {}
    chosen = pictures or Pictures.random(plan.shape)
    converted: dict[str, onnx.ModelProto] = {}
    found: dict[str, dict[float, float]] = {}
    for name, graph in graphs.items():
        seen = plan.files[name][2]
        if _own(graph) == precision:
            converted[name] = graph
        elif precision == "int8":
            converted[name] = to_int8(
                graph, chosen.noisy(seen), ends=quantise_ends, reduce_range=reduce_range, name=plan.label(name)
            )
        else:
            converted[name] = to_half(graph, precision, plan.label(name))
        check_file(converted[name], plan.label(name))
        measured = emulated(graph, precision) if precision == "bf16" else converted[name]
        found[name] = agreement(graph, measured, chosen.noisy(seen, held_out=True), plan.label(name))
    limit = FLOORS[precision] if floor is None else floor
    check_floor(found, limit, force=force)
    return converted, {
        "agreement": {name: {f"{s:g}": round(a, 4) for s, a in levels.items()} for name, levels in found.items()},
        "floor": limit,
        "forced": force,
        "images": chosen.name,
        "measured_on": len(chosen.held_out),
        **({"calibrated_on": len(chosen.calibration)} if precision == "int8" else {}),
        **({"emulated": True} if precision == "bf16" else {}),
        "bytes": {name: [graphs[name].ByteSize(), converted[name].ByteSize()] for name in graphs},
    }  # fmt: skip


def serialise(model: onnx.ModelProto, name: str, external_above: int = EXTERNAL_ABOVE) -> dict[str, bytes]:
    """The files of one graph: NAME, and NAME's stem + `.data` with the weights where they are large.

    Raises `BundleError` from `read_bundle` later, not here.
    """
    if model.ByteSize() <= external_above:
        return {name: model.SerializeToString(deterministic=True)}
    split = onnx.ModelProto()
    split.CopyFrom(model)
    location = f"{Path(name).stem}.data"
    parts: list[bytes] = []
    at = 0
    for tensor in split.graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        data = tensor.raw_data
        if len(data) < 1024:
            continue
        padding = -at % 4096  # where the engine can map the file
        parts += [bytes(padding), data]
        at += padding
        external_data_helper.set_external_data(tensor, location, offset=at, length=len(data))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        at += len(data)
    return {name: split.SerializeToString(deterministic=True), location: b"".join(parts)}


def version_of_engine() -> str:
    """The version of ONNX Runtime that parity and agreement were measured with."""
    import onnxruntime

    return str(onnxruntime.__version__)


def write_bundle(root: Path, files: Mapping[str, bytes], **manifest: Any) -> Bundle:
    """Write ONNX files and their manifest (arguments of `manifest_text`, without `files`) as the bundle `root`.

    Everything is written into a sibling directory, synced, read back and checked; one rename then makes it appear.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror}; choose another --out") from error
    try:
        for name, data in files.items():
            write_atomically(aside / name, data)
        hashes = {name: sha256_of(aside / name) for name in files}
        optimisation = _survived(aside, hashes, manifest["input_shape"])
        text = manifest_text(files=hashes, optimisation=optimisation, **manifest)
        write_atomically(aside / "manifest.json", text)
        try:
            bundle = read_bundle(aside)
        except BundleError as error:  # nobody knows the folder aside
            raise BundleError(str(error).replace(str(aside), str(root))) from error
        write_atomically(aside / CARD, model_card(bundle, version("dualsmooth")))
        open_to_all_but_umask(aside, 0o777)
        sync_folder(aside)
        try:
            aside.rename(root)
        except OSError as error:
            raise InputError(f"cannot move the bundle to {root}: {error.strerror}; choose another --out") from error
        sync_folder(root.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return dataclasses.replace(bundle, path=root)


def _own(graph: onnx.ModelProto) -> str:
    """The precision of a graph: a file's own, whatever was asked for."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")  # types are enough, and one message cannot hold large weights
    return precision_of(parse_model(bare.SerializeToString(), "the graph").graph)


def _survived(folder: Path, hashes: Mapping[str, str], shape: tuple[int, int, int]) -> dict[str, str]:
    """The files whose graphs ONNX Runtime's CPU provider survives only with less optimisation, and how much."""
    weights = [digest for name, digest in hashes.items() if name.endswith(".data")]
    graphs = {name: [digest, *weights] for name, digest in hashes.items() if name.endswith(".onnx")}
    levels = {name: safe_level(folder / name, " ".join(d), shape, name=name) for name, d in graphs.items()}
    return {name: level for name, level in levels.items() if level != "all"}


def _check(
    root: Path,
    classifiers: Sequence[Source],
    levels: tuple[float, ...],
    precision: str,
    pictures: Pictures | None,
    floor: float | None,
    input_shape: tuple[int, int, int],
) -> None:
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty directory; choose another --out, or remove it first")
    if len(classifiers) != len(levels) or not classifiers:
        raise InputError(
            f"{len(classifiers)} classifiers for {len(levels)} sigmas; expected one each (the same module may repeat)"
        )
    if precision not in TARGETS:
        raise InputError(f"precision {precision!r} is unknown; expected one of {', '.join(TARGETS)}")
    if floor is not None and not 0 <= floor <= 1:
        raise InputError(f"floor is {floor}; expected a share from 0 to 1, e.g. 0.95")
    if precision == "int8" and pictures is None:
        raise InputError("int8 needs images to calibrate on; pass --calibration DATASET (its training images are used)")
    if pictures is not None and pictures.calibration.shape[1:] != input_shape:
        raise InputError(
            f"{pictures.name} holds images of {in_words(pictures.calibration.shape[1:])}; the networks take "
            f"{in_words(input_shape)}"
        )
