"""Existing ONNX files as base models: checked, renamed to the contract, dynamic in the batch, normalised inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.agreement import batches, opened
from dualsmooth.export.graph import INPUT, OUTPUT, SIGMA, strip
from dualsmooth.export.layout import FIX, channels_first, image_shape
from dualsmooth.export.precision import convert_opset
from dualsmooth.runtime.errors import BundleError, InputError, one_line
from dualsmooth.runtime.foreign_files import foreign
from dualsmooth.runtime.onnx_model import parse_model
from dualsmooth.runtime.onnx_rows import fault

MIN_OPSET = 18
Statistics = Sequence[float]


def load_onnx(
    path: str | Path,
    input_shape: tuple[int, int, int],
    *,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    layout: str = "nchw",
) -> onnx.ModelProto:
    """The network in the ONNX file at `path` as a base model: input `x` [N,C,H,W], output `logits`, N dynamic.

    Its image input must be float32 [N,C,H,W] of `input_shape`; a second input must be the scalar `sigma`. `mean` and
    `std` (one a channel, or one for all) put (x - mean) / std in front: pass them where the file expects normalised
    images. Raises `InputError` for a file that cannot be read, `BundleError` for one that cannot serve.
    """
    path = Path(path)
    _require_onnx(path)
    try:
        model = onnx.load(path)
        model = strip(model)
        onnx.checker.check_model(model if model.ByteSize() < 1 << 30 else str(path))
    except Exception as error:
        said = foreign(path, guess=True)
        raise InputError(said or f"cannot read {path} as ONNX ({one_line(error)}); pass an ONNX file") from error
    channels_first(model, input_shape, layout)
    _check_rows(model, path, input_shape)
    if model.functions:
        raise BundleError(f"{path} holds functions of its own; inline them, e.g. with onnx.inliner")
    _drop_idle_domains(model, path)
    if model.opset_import[0].version < MIN_OPSET:
        model = strip(convert_opset(model, MIN_OPSET))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    image = _ends(model, path, input_shape)
    batch = image.type.tensor_type.shape.dim[0].dim_value
    original = onnx.ModelProto()
    original.CopyFrom(model)
    _rename(model, image.name, INPUT)
    _rename(model, model.graph.output[0].name, OUTPUT)
    _free_batch(model, batch)
    if batch > 0:
        _check_freed(original, model, path, input_shape, batch)
    if mean is not None or std is not None:
        _normalise(model, input_shape[0], mean or (0.0,), std or (1.0,))
    return model


def shape_of(path: str | Path, layout: str = "nchw") -> tuple[int, int, int]:
    """The [C,H,W] that the image input of an ONNX file declares. Raises `InputError` where it is not fixed."""
    _require_onnx(Path(path))
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        said = foreign(Path(path), guess=True)
        raise InputError(said or f"cannot read {path} as ONNX ({one_line(error)}); pass an ONNX file") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.name not in constants and len(dims) == 4 and min(dims[1:]) > 0:
            return image_shape(dims[1:], layout, Path(path))
    raise InputError(f"{path} declares no fixed image shape [N,C,H,W]; pass --input-shape C,H,W")


def _check_rows(model: onnx.ModelProto, path: Path, shape: tuple[int, int, int]) -> None:
    """Raises `BundleError` where an operator of the user's file is random or mixes the images of a batch."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if len(tensor.raw_data) > 1 << 20:  # weights say nothing here, and may be too large for one message
            tensor.ClearField("raw_data")
    try:
        graph = parse_model(bare.SerializeToString(), path).graph
    except BundleError:  # what is odd about it is said later
        return
    image = next((v.name for v in graph.inputs if len(v.dims or ()) == 4 and v.name not in graph.constants), "")
    if said := fault(graph, image, shape):
        raise BundleError(f"{path}: {said}")


def _require_onnx(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} is not a file; pass an ONNX file")
    if what := foreign(path):
        raise InputError(what)


def _drop_idle_domains(model: onnx.ModelProto, path: Path) -> None:
    used = {node.domain for node in model.graph.node}
    foreign = sorted(used - {"", "ai.onnx"})
    if foreign:
        ops = sorted({node.op_type for node in model.graph.node if node.domain == foreign[0]})
        raise BundleError(f"{path} needs {ops[0]} of the domain {foreign[0]!r}; use standard ONNX operators only")
    kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept[:1])


def _ends(model: onnx.ModelProto, path: Path, input_shape: tuple[int, int, int]) -> onnx.ValueInfoProto:
    """The image input, after a look at all inputs and outputs."""
    graph = model.graph
    tensors = [_text(value) for value in (*graph.input, *graph.output)]
    images = [value for value in graph.input if len(value.type.tensor_type.shape.dim) == 4]
    others = [value for value in graph.input if value not in images]
    scalar = all(v.name == SIGMA and not v.type.tensor_type.shape.dim for v in others)
    if len(images) != 1 or len(others) > 1 or not scalar or len(graph.output) != 1:
        raise BundleError(
            f"{path} has {', '.join(tensors)[:300]}; expected one image input [N,C,H,W], at most a scalar named sigma, "
            "and one output [N,classes]"
        )
    image: onnx.ValueInfoProto = images[0]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise BundleError(f"{path} has {_text(value)}; expected float32 inputs and outputs: cast inside the graph")
    dims = [d.dim_value for d in image.type.tensor_type.shape.dim][1:]
    if any(d not in (0, wanted) for d, wanted in zip(dims, input_shape, strict=True)):
        hint = f"; it takes channels last: {FIX}" if dims[-1] == input_shape[0] else ""
        raise BundleError(f"{path} has {_text(image)}; expected [N,{','.join(map(str, input_shape))}]{hint}")
    for dim, wanted in zip(list(image.type.tensor_type.shape.dim)[1:], input_shape, strict=True):
        dim.dim_value = wanted
    return image


def _text(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ",".join(str(d.dim_value or d.dim_param or "?") for d in kind.shape.dim)
    return f"{value.name} {TensorProto.DataType.Name(kind.elem_type).lower()} [{dims}]"


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give the tensor `old` the name `new`; another tensor of that name moves away."""
    if old == new:
        return
    names = {old: new, new: f"{new}_inner"}

    def walk(graph: onnx.GraphProto) -> None:
        for item in (*graph.input, *graph.output, *graph.initializer):
            item.name = names.get(item.name, item.name)
        for node in graph.node:
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
            for attribute in node.attribute:
                for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    walk(inner)

    walk(model.graph)


def _free_batch(model: onnx.ModelProto, batch: int) -> None:
    """Name the batch; where it was the number `batch`, let reshapes copy it from their input instead."""
    graph = model.graph
    for value in (graph.input[0] if graph.input[0].name == INPUT else graph.input[1], graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "batch"
    if batch == 0:
        return
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    for node in reshapes:  # with allowzero, 0 would mean "empty" and not "as the input"
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    shapes = {node.input[1] for node in reshapes}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            sizes = numpy_helper.to_array(tensor).copy()
            if sizes.ndim == 1 and len(sizes) and sizes[0] == batch:
                sizes[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(sizes, tensor.name))
    literal = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    for name in shapes & set(literal):
        for attribute in literal[name].attribute:
            if attribute.name == "value":
                sizes = numpy_helper.to_array(attribute.t).copy()
                if sizes.ndim == 1 and len(sizes) and sizes[0] == batch:
                    sizes[0] = 0
                    attribute.t.CopyFrom(numpy_helper.from_array(sizes))


def _check_freed(
    original: onnx.ModelProto, model: onnx.ModelProto, path: Path, shape: tuple[int, int, int], batch: int
) -> None:
    """The dynamic graph gives each image what the original gives it, in batches of other sizes too."""
    (x,) = batches(shape, 0.1, [2 * batch + 1])
    x = x[: 2 * batch]
    sigma: dict[str, Any] = {v.name: np.float32(0.1) for v in model.graph.input if v.name == SIGMA}
    image = next(v.name for v in original.graph.input if v.name != SIGMA)
    refusal = BundleError(
        f"{path} fixes its batch size to {batch}, inside of the graph too; export it again with a dynamic batch"
    )
    try:
        with opened(original, str(path)) as old, opened(model, str(path)) as new:
            parts = [x[start : start + batch] for start in (0, batch)]
            expected = np.concatenate([old.run(None, {image: part, **sigma})[0] for part in parts])
            together = new.run(None, {INPUT: x, **sigma})[0]
            alone = new.run(None, {INPUT: x[:1], **sigma})[0]
    except Exception as error:
        raise refusal from error
    scale = max(1.0, float(np.abs(expected).max()))
    fits = together.shape == expected.shape and alone.shape == expected[:1].shape
    if not fits or max(np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()) > 1e-3 * scale:
        raise refusal


def _normalise(model: onnx.ModelProto, channels: int, mean: Statistics, std: Statistics) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels) or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
            raise InputError(f"{name} is {list(values)}; expected 1 or {channels} finite numbers (std: positive)")
    inner = "x_normalised"
    for node in model.graph.node:
        node.input[:] = [inner if name == INPUT else name for name in node.input]
    for name, values in (("x_mean", mean), ("x_std", std)):
        array = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.insert(0, helper.make_node("Sub", [INPUT, "x_mean"], ["x_centred"]))
    model.graph.node.insert(1, helper.make_node("Div", ["x_centred", "x_std"], [inner]))
