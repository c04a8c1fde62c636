"""The graphs of a bundle in another precision, refused where they do not vote like their fp32 originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from dualsmooth.export.checks.agreement import FLOORS, Pictures, agreement, check_floor
from dualsmooth.export.members import MemberFile
from dualsmooth.export.onnx.graph import check_file
from dualsmooth.export.onnx.precision import emulated, to_half, to_int8
from dualsmooth.runtime.datasets.dataset import in_words
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.precision import precision_of

TARGETS = ("fp32", "fp16", "bf16", "int8")
"""Precisions that networks are converted to."""


@dataclass(frozen=True)
class Target:
    """A precision of `TARGETS`, and how it is reached: as the arguments of `export_bundle` of these names."""

    precision: str
    pictures: Pictures | None
    floor: float | None
    force: bool
    quantise_ends: bool
    reduce_range: bool

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises `InputError` where it cannot be reached by networks that take images of this shape."""
        if self.precision not in TARGETS:
            raise InputError(f"precision {self.precision!r} is unknown; expected one of {', '.join(TARGETS)}")
        if self.floor is not None and not 0 <= self.floor <= 1:
            raise InputError(f"floor is {self.floor}; expected a share from 0 to 1, e.g. 0.95")
        if self.precision == "int8" and self.pictures is None:
            raise InputError(
                "int8 needs images to calibrate on; pass --calibration DATASET (its training images are used)"
            )
        if self.pictures is not None and self.pictures.calibration.shape[1:] != input_shape:
            raise InputError(
                f"{self.pictures.name} holds images of {in_words(self.pictures.calibration.shape[1:])}; the networks "
                f"take {in_words(input_shape)}"
            )


def to_precision(
    graphs: Mapping[str, onnx.ModelProto],
    files: Sequence[MemberFile],
    target: Target,
    input_shape: tuple[int, int, int],
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """The graphs of `files`, by name, in the target's precision, and for the manifest how well those that were
    converted agree with their originals. Raises `BundleError` where they do not."""
    if target.precision == "fp32":
        return dict(graphs), {}
    pictures = target.pictures or Pictures.random(input_shape)
    made: dict[str, onnx.ModelProto] = {}
    found: dict[str, dict[float, float]] = {}
    for file in files:
        graph = graphs[file.name]
        if own_precision(graph) == target.precision:  # it stays as it is, whatever it once was made from
            made[file.name] = graph
            continue
        made[file.name] = _converted(graph, file, target, pictures)
        check_file(made[file.name], file.label)
        measured = emulated(graph, "bf16") if target.precision == "bf16" else made[file.name]
        found[file.name] = agreement(graph, measured, pictures.noisy(file.levels, held_out=True), file.label)
    limit = FLOORS[target.precision] if target.floor is None else target.floor
    check_floor(found, limit, force=target.force)
    return made, {
        "agreement": {name: {f"{s:g}": round(a, 4) for s, a in levels.items()} for name, levels in found.items()},
        "floor": limit,
        "forced": target.force,
        "images": pictures.name,
        "measured_on": len(pictures.held_out),
        **({"calibrated_on": len(pictures.calibration)} if target.precision == "int8" else {}),
        **({"emulated": True} if target.precision == "bf16" else {}),
        "bytes": {name: [graphs[name].ByteSize(), made[name].ByteSize()] for name in found},
    }


def _converted(graph: onnx.ModelProto, file: MemberFile, target: Target, pictures: Pictures) -> onnx.ModelProto:
    """One graph in the target's precision."""
    if target.precision == "int8":
        ends, narrow = target.quantise_ends, target.reduce_range
        return to_int8(graph, pictures.noisy(file.levels), ends=ends, reduce_range=narrow, name=file.label)
    return to_half(graph, target.precision, file.label)


def own_precision(graph: onnx.ModelProto) -> str:
    """The precision of a graph: a file's own, whatever was asked for."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")  # types are enough, and one message cannot hold large weights
    return precision_of(parse_model(bare.SerializeToString(), "the graph").graph)
