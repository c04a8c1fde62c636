"""Networks to a bundle: brought to the contract, compared with the original, converted, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch import nn

from dualsmooth.export.checks.agreement import Pictures
from dualsmooth.export.checks.parity import check_rows, compare
from dualsmooth.export.conversion import Target, own_precision, to_precision
from dualsmooth.export.members import MemberFile, Source, member_files
from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.graph import to_model
from dualsmooth.export.onnx.modules import normalised, takes_sigma
from dualsmooth.export.onnx.normalisation import Normalisation, Statistics, check_statistics
from dualsmooth.export.onnx.sessions import opened
from dualsmooth.export.roles import ROLES
from dualsmooth.export.writing import EXTERNAL_ABOVE, serialise, write_bundle
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.reading import MANIFEST, Bundle, manifest_text, parse_manifest
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.runtime.graphs.precision import overall
from dualsmooth.runtime.noise.levels import require_unit_scale
from dualsmooth.runtime.statistics.groups import Groups


def export_bundle(
    out: str | Path,
    *,
    classifiers: Sequence[Source],
    sigmas: Sequence[float],
    estimator: Source | None = None,
    sigma_e: float | None = None,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    provenance: Mapping[str, Any] | None = None,
    resize: int | tuple[int, int] | None = None,
    resampling: str = "bilinear",
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
    groups: Mapping[str, Any] | Groups | None = None,
    sure: Sequence[float] = (),
) -> Bundle:
    """Export `estimator` ([N,C,H,W] to [N,len(sigmas)]) and the classifier of each sigma ([N,len(classes)]) to `out`.

    `sigma_e`: the estimator's noise level, by default the largest of the sigmas; one sigma needs no estimator. A
    network is a module, an ONNX file, or an `Ensemble` of them. They take noisy images in [0, 1] units, unnormalised:
    normalisation belongs inside, and `normalise` puts it in front of networks that lack it: "estimator" or "classifier"
    to (mean, std), each one number a channel, or one for all. `layout` "nhwc" puts a transpose in front of ONNX files
    that take channels last. Modules whose `forward` has a second parameter `sigma` get the noise level. One that serves
    several sigmas is passed several times, and becomes one file. `out` must not exist, or be empty; it appears complete
    or not at all. `groups` are as `Groups.resolved` takes them; `sure`: of each level above the smallest, the softmax
    from which on a vote is sure (none: all are). `resize`: pictures of any size are taken: their shorter side becomes
    that, or they become [height, width], resampled as Pillow does (`resampling`), and their middle is the input.

    `precision` is fp32, fp16, bf16 or int8. The others are compared with fp32 under noise at each level, on held-out
    `pictures` (on random images without), and refused where the arg max agrees on less than `floor` (by default
    `FLOORS`), unless `force`. int8 needs `pictures` to calibrate on, and keeps the first and last layers in float32
    unless `quantise_ends`; `reduce_range` leaves weights 7 bits, whose sums do not saturate without int8 dot products
    (VNNI). `provenance` goes into the manifest, with versions, parity and agreement. Raises `InputError` for arguments
    that do not fit, `BundleError` where a network cannot be exported.
    """
    levels = tuple(float(s) for s in sigmas)
    target = Target(precision, pictures, floor, force, quantise_ends, reduce_range)
    _check_place(Path(out), len(classifiers), len(levels))
    target.check(input_shape)
    _check_normalise(normalise, mean, std, input_shape[0])
    manifest, files = _members(estimator, sigma_e, classifiers, levels, tuple(classes), groups)
    how = None if resize is None else Preprocessing(input_shape, resize, resampling)
    manifest |= {"input_shape": input_shape, "preprocessing": how, "precision": precision, "sure": tuple(sure)}
    _check_manifest(manifest, files)
    graphs, parity = _graphs(files, input_shape, normalise, layout, parity_batches)
    made, report = to_precision(graphs, files, target, input_shape)
    manifest["precision"] = overall(own_precision(graph) for graph in made.values())
    data = dict(part for name, graph in made.items() for part in serialise(graph, name, external_above).items())
    return write_bundle(Path(out), data, provenance=_provenance(provenance, parity, report), **manifest)


def _check_place(root: Path, classifiers: int, levels: int) -> None:
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty directory; choose another --out, or remove it first")
    if classifiers != levels or not classifiers:
        raise InputError(
            f"{classifiers} classifiers for {levels} sigmas; expected one each (the same module may repeat)"
        )


def _members(
    estimator: Source | None,
    sigma_e: float | None,
    classifiers: Sequence[Source],
    levels: tuple[float, ...],
    classes: tuple[str, ...],
    groups: Mapping[str, Any] | Groups | None,
) -> tuple[dict[str, Any], list[MemberFile]]:
    """Levels, classes and networks as the manifest has them, and the networks' files. Raises `InputError`."""
    routers = _routers(estimator, sigma_e, levels)
    noisy_at = tuple(sigma for _, sigma in routers)
    require_unit_scale((*levels, *noisy_at), "sigmas and sigma_e")
    first, files = member_files("estimator", [source for source, _ in routers], noisy_at, len(levels))
    models, others = member_files("classifier", classifiers, levels, len(classes))
    sets = None if groups is None else Groups.resolved(groups, classes)
    facts = {"sigmas": levels, "sigma_e": next(iter(noisy_at), None), "classes": classes, "groups": sets}
    return {**facts, "estimator": next(iter(first), None), "classifiers": tuple(models)}, files + others


def _routers(estimator: Source | None, sigma_e: float | None, levels: tuple[float, ...]) -> list[tuple[Source, float]]:
    """The estimator and its noise level; none where there is one level without a router. Raises `InputError`."""
    if estimator is not None:
        return [(estimator, max(levels) if sigma_e is None else float(sigma_e))]
    if len(levels) > 1:
        raise InputError(
            f"{len(levels)} sigmas and no estimator to choose between them; pass one, or one sigma without a router"
        )
    if sigma_e is not None:
        raise InputError(f"sigma_e is {sigma_e}, the noise level of an estimator, and there is none; leave it out")
    return []


def _check_normalise(
    normalise: Mapping[str, Normalisation], mean: Statistics | None, std: Statistics | None, channels: int
) -> None:
    if mean is not None or std is not None:
        raise InputError(
            "mean and std do not say for which network they are; pass normalise={'classifier': (mean, std)}, and "
            "'estimator' too where it expects normalised images"
        )
    for role, statistics in normalise.items():
        if role not in ROLES:
            raise InputError(f"normalise has {role!r}; expected {' and '.join(ROLES)}")
        check_statistics(*statistics, channels, f"{role} ")


def _check_manifest(manifest: Mapping[str, Any], files: Sequence[MemberFile]) -> None:
    """Raises `InputError` where no reader would take what is to be exported, before any work is done."""
    hashes = {file.name: "0" * 64 for file in files}
    try:
        parse_manifest(Path(), manifest_text(files=hashes, provenance={}, **manifest).encode())
    except BundleError as error:
        what = str(error).removeprefix(f"{MANIFEST}: ").removesuffix("; export the bundle again")
        raise InputError(f"such a bundle cannot be made: {what}") from error


def _graphs(
    files: Sequence[MemberFile],
    input_shape: tuple[int, int, int],
    normalise: Mapping[str, Normalisation],
    layout: str,
    batches: Sequence[int],
) -> tuple[dict[str, onnx.ModelProto], dict[str, float]]:
    """The graph of each file by name, and for modules the largest difference of its logits from theirs."""
    graphs: dict[str, onnx.ModelProto] = {}
    parity: dict[str, float] = {}
    for file in files:
        name, network = file.name, file.network
        mean, std = normalise.get(file.role, (None, None))
        if isinstance(network, nn.Module):
            network = network if mean is None else normalised(network, mean, std)
            graphs[name] = to_model(network, input_shape)
            with opened(graphs[name], name) as session:
                told = file.levels if takes_sigma(network) else file.levels[-1:]
                worst = compare(network, session, input_shape, file.outputs, told, name, batches)
            parity[name] = float(f"{worst:.3g}")
        else:
            graphs[name] = load_onnx(network, input_shape, mean=mean, std=std, layout=layout)
        check_rows(graphs[name], input_shape, file.outputs, file.levels[-1], file.label)
    return graphs, parity


def _provenance(given: Mapping[str, Any] | None, parity: dict[str, float], precision: dict[str, Any]) -> dict[str, Any]:
    """What was given, what was measured, and the versions of what was used."""
    import onnxruntime

    return {
        **(given or {}),
        **({"parity": parity} if parity else {}),
        **({"precision": precision} if precision else {}),
        "exported_with": {
            "torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": str(onnxruntime.__version__),
        },
    }  # fmt: skip
