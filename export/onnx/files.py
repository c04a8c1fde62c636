"""Existing ONNX files as base models: checked, renamed to the contract, dynamic in the batch, normalised inside.

Each step is compared with the untouched file (`rewrites.Original`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.onnx.batch import free_batch
from dualsmooth.export.onnx.graph import INPUT, OUTPUT, SIGMA, check_file
from dualsmooth.export.onnx.layout import FIX, channels_first, image_shape
from dualsmooth.export.onnx.nodes import subgraphs
from dualsmooth.export.onnx.normalisation import Statistics, check_statistics
from dualsmooth.export.onnx.opsets.convert import OLDEST, convert
from dualsmooth.export.onnx.reading import read_plain
from dualsmooth.export.onnx.rewrites import Logits, Original
from dualsmooth.runtime.errors import BundleError, InputError, one_line
from dualsmooth.runtime.graphs.foreign_files import foreign
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.rows import fault

FLOATS: dict[int, type[np.floating]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
}
"""Element types of an image or of logits: another one than float32 gets a cast."""

Ends = Sequence[onnx.ValueInfoProto]


def load_onnx(
    path: str | Path,
    input_shape: tuple[int, int, int],
    *,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    layout: str = "nchw",
) -> onnx.ModelProto:
    """The network in the ONNX file at `path` as a base model: input `x` [N,C,H,W], output `logits`, N dynamic.

    Its image input must be [N,C,H,W] of `input_shape` (with `layout` nhwc: [N,H,W,C]) and of floats; a second input
    must be the scalar `sigma`. `mean` and `std` (one a channel, or one for all) put (x - mean) / std in front: pass
    them where the file expects normalised images. What comes out of each step is compared with the untouched file.
    Raises `InputError` for a file that cannot be read, `BundleError` for one that cannot serve.
    """
    path = Path(path)
    _require_onnx(path)
    model = read_plain(path)
    channels_last = channels_first(model, input_shape, layout)
    _check_rows(model, path, input_shape)
    image = _ends(model, path, input_shape)
    dims, kind = image.type.tensor_type.shape.dim, image.type.tensor_type.elem_type
    statistics = None if mean is None and std is None else _statistics(mean, std, input_shape[0])
    original = Original(
        path, model, image.name, FLOATS[kind], input_shape, max(0, dims[0].dim_value), statistics, channels_last
    )
    fixed, version = original.batch, model.opset_import[0].version
    _rename(model, image.name, INPUT)
    _rename(model, model.graph.output[0].name, OUTPUT)
    _plain_ends(model, original)
    original.check(model, "its plain form (nodes sorted, functions inlined, float32 ends)", fixed)
    if version < OLDEST:
        model = convert(model, OLDEST, str(path))
        original.check(model, f"bringing opset {version} to {OLDEST}", fixed)
    if fixed:
        model = free_batch(model, fixed)
        original.check_freed(model)
    if statistics is not None:
        _normalise(model, *statistics)
        original.check(model, "(x - mean) / std in front", normalised=False)
    check_file(model, str(path))
    return model


def shape_of(path: str | Path, layout: str = "nchw") -> tuple[int, int, int]:
    """The [C,H,W] that the image input of an ONNX file declares. Raises `InputError` where it is not fixed."""
    graph = _declared(Path(path))
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.name not in constants and len(dims) == 4 and min(dims[1:]) > 0:
            return image_shape(dims[1:], layout, Path(path))
    raise InputError(
        f"{path} declares no fixed image shape [N,C,H,W]; pass --input-shape C,H,W (or input_shape=(C, H, W))"
    )


def width_of(path: str | Path) -> int:
    """How many logits a row of the output of an ONNX file has. Raises `InputError` where it does not declare that,
    `BundleError` where it has several outputs."""
    path = Path(path)
    graph = _declared(path)
    _require_one_output(graph, path)
    dims = graph.output[0].type.tensor_type.shape.dim
    if len(dims) < 2 or dims[1].dim_value < 1:
        raise InputError(f"{path} does not declare how many classes it has; pass --classes (or classes=), e.g. 10")
    return int(dims[1].dim_value)


def _declared(path: Path) -> onnx.GraphProto:
    """The graph of a file, for what it declares. Raises `InputError`."""
    _require_onnx(path)
    try:
        return onnx.load(path, load_external_data=False).graph
    except Exception as error:
        said = foreign(path, guess=True)
        raise InputError(said or f"cannot read {path} as ONNX ({one_line(error)}); pass an ONNX file") from error


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


def _ends(model: onnx.ModelProto, path: Path, input_shape: tuple[int, int, int]) -> onnx.ValueInfoProto:
    """The image input, after a look at all inputs and outputs; its sizes are set."""
    graph = model.graph
    tensors = _ends_in_words(graph)
    others = [value for value in graph.input if value.name == SIGMA and not value.type.tensor_type.shape.dim]
    images = [value for value in graph.input if value not in others]
    ranks = {len(v.type.tensor_type.shape.dim) if v.type.tensor_type.HasField("shape") else 4 for v in images}
    if len(images) != 1 or len(others) > 1 or ranks != {4}:
        raise BundleError(f"{path} has {tensors}; expected one image input [N,C,H,W], at most a scalar named sigma too")
    _require_one_output(graph, path)
    image: onnx.ValueInfoProto = images[0]
    _check_types(image, graph.output[0], others, path)
    if not image.type.tensor_type.HasField("shape"):
        image.type.CopyFrom(helper.make_tensor_type_proto(image.type.tensor_type.elem_type, ["batch", *input_shape]))
    shape = image.type.tensor_type.shape
    dims = [d.dim_value for d in shape.dim][1:]
    if any(0 < d != wanted for d, wanted in zip(dims, input_shape, strict=True)):
        hint = f"; it takes channels last: {FIX}" if dims[-1] == input_shape[0] else ""
        raise BundleError(f"{path} has {_text(image)}; expected [N,{','.join(map(str, input_shape))}]{hint}")
    for dim, wanted in zip(list(shape.dim)[1:], input_shape, strict=True):
        dim.dim_value = wanted
    return image


def _require_one_output(graph: onnx.GraphProto, path: Path) -> None:
    if len(graph.output) != 1:
        constants = {tensor.name for tensor in graph.initializer}
        images = [value.name for value in graph.input if value.name not in constants][:1]
        raise BundleError(
            f"{path} has {_ends_in_words(graph)}; expected one output [N,classes]: cut the others off, e.g. "
            f"onnx.utils.extract_model({path.name!r}, 'logits.onnx', {images}, [NAME_OF_THE_LOGITS])"
        )


def _ends_in_words(graph: onnx.GraphProto) -> str:
    return ", ".join(_text(value) for value in (*graph.input, *graph.output))[:300]


def _check_types(image: onnx.ValueInfoProto, output: onnx.ValueInfoProto, others: Ends, path: Path) -> None:
    """Raises `BundleError` for ends that no cast makes float32 without changing what the network is."""
    kind = image.type.tensor_type.elem_type
    if kind == TensorProto.UINT8:
        raise BundleError(
            f"{path} has {_text(image)}; noisy pixels cannot be bytes: cut its first cast off, so that it takes float32"
        )
    for value in (image, output, *others):
        known = FLOATS if value not in others else (TensorProto.FLOAT,)
        if value.type.tensor_type.elem_type not in known:
            raise BundleError(
                f"{path} has {_text(value)}; expected float32 (float16 or double get a cast): images in, logits out"
            )


def _text(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ",".join(str(d.dim_value or d.dim_param or "?") for d in kind.shape.dim)
    return f"{value.name} {TensorProto.DataType.Name(kind.elem_type).lower()} [{dims}]"


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give the tensor `old` the name `new`; another tensor of that name moves away."""
    if old == new:
        return
    names = {old: new, new: _unused(model, f"{new}_inner")}

    def walk(graph: onnx.GraphProto) -> None:
        for item in (*graph.input, *graph.output, *graph.initializer):
            item.name = names.get(item.name, item.name)
        for node in graph.node:
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
            for inner in subgraphs(node):
                walk(inner)

    walk(model.graph)


def _unused(model: onnx.ModelProto, name: str) -> str:
    """`name`, or where the graph has that already, one like it."""

    def names(graph: onnx.GraphProto) -> set[str]:
        found = {item.name for item in (*graph.input, *graph.initializer)}
        for node in graph.node:
            found.update(node.output, *(names(inner) for inner in subgraphs(node)))
        return found

    taken = names(model.graph)
    while name in taken:
        name += "_"
    return name


def _plain_ends(model: onnx.ModelProto, original: Original) -> None:
    """Float32 ends: casts for a graph of half or double ones; logits [N,classes,1,1] lose their last axes."""
    graph = model.graph
    image, logits = next(value for value in graph.input if value.name == INPUT), graph.output[0]
    for value, outside in ((image, INPUT), (logits, OUTPUT)):
        kind = value.type.tensor_type.elem_type
        if kind == TensorProto.FLOAT:
            continue
        inside = _unused(model, f"{outside}_inside")
        _rename(model, outside, inside)
        value.name = outside
        if value is image:
            graph.node.insert(0, helper.make_node("Cast", [outside], [inside], to=kind))
        else:
            graph.node.append(helper.make_node("Cast", [inside], [outside], to=TensorProto.FLOAT))
    if original.tail:
        inside = _unused(model, f"{OUTPUT}_inside")
        _rename(model, OUTPUT, inside)
        logits.name = OUTPUT
        graph.node.append(helper.make_node("Flatten", [inside], [OUTPUT], axis=1))
    sizes = [d.dim_value for d in image.type.tensor_type.shape.dim][1:]
    for value, dims in ((image, sizes), (logits, original.expected.shape[1:])):
        value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [original.batch or "batch", *dims]))


def _statistics(mean: Statistics | None, std: Statistics | None, channels: int) -> tuple[Logits, Logits]:
    """Both as float32, [C,1,1] or [1,1,1]. Raises `InputError`."""
    checked = check_statistics(mean, std, channels)
    first, second = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in checked)
    return first, second


def _normalise(model: onnx.ModelProto, mean: Logits, std: Logits) -> None:
    graph = model.graph
    inner, centred = (_unused(model, f"{INPUT}_{what}") for what in ("normalised", "centred"))
    _rename(model, INPUT, inner)
    next(value for value in graph.input if value.name == inner).name = INPUT
    names = [_unused(model, f"{INPUT}_{what}") for what in ("mean", "std")]
    graph.initializer.extend(numpy_helper.from_array(v[None], k) for k, v in zip(names, (mean, std), strict=True))
    graph.node.insert(0, helper.make_node("Sub", [INPUT, names[0]], [centred]))
    graph.node.insert(1, helper.make_node("Div", [centred, names[1]], [inner]))
