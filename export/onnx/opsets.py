"""Graphs of old operator sets in the forms of newer ones, operator by operator.

ONNX's own converter changes what some operators compute (Resize before 11, Softmax before 13) and leaves branches
alone, so the forms that changed are listed here. Whoever converts runs both graphs on the same images afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from dualsmooth.runtime.errors import BundleError

OLDEST = 13
"""The operator set that older graphs are brought to: the first one that the runtime admits."""

NEWEST = 22
"""The first one in which convolution and pooling take bfloat16."""

Nodes = list[onnx.NodeProto]


def convert(model: onnx.ModelProto, version: int, name: str) -> onnx.ModelProto:
    """A copy of `model` in the newer operator set `version`, 13 or 22. Raises `BundleError` where it cannot."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    scope = _Scope(out)
    try:
        for table, low in ((_TO_13, OLDEST), (_TO_22, NEWEST)):
            if scope.source < low <= version:
                scope.rewrite(out.graph, table)
    except _Unknown as error:
        raise BundleError(
            f"{name}: {error} cannot be brought to opset {version}; export it again with opset {version} or newer"
        ) from None
    out.opset_import[0].version = version
    out.ir_version = max(out.ir_version, helper.find_min_ir_version_for(out.opset_import))
    return out


class _Unknown(Exception):
    """What has no newer form here."""


class _Scope:
    """What the rules know of the graph: constants, ranks and element types by name; and fresh names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.source = model.opset_import[0].version
        self.constants: dict[str, onnx.TensorProto] = {}
        self.types: dict[str, onnx.TypeProto.Tensor] = {}
        self._made: list[onnx.TensorProto] = []
        self._count = 0
        try:
            inferred = onnx.shape_inference.infer_shapes(model)
        except Exception:  # it only helps: what is not known is done in a form that fits all ranks, or refused
            inferred = model
        self._learn(inferred.graph)

    def _learn(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.value_info):
            self.types[value.name] = value.type.tensor_type
        for tensor in graph.initializer:
            self.constants[tensor.name] = tensor
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            for inner in subgraphs(node):
                self._learn(inner)

    def rewrite(self, graph: onnx.GraphProto, table: dict[str, Callable[[_Scope, onnx.NodeProto], Nodes]]) -> None:
        """Replace the nodes of `graph`, and of the graphs inside of it, as the table says."""
        outer, self._made = self._made, []
        nodes: Nodes = []
        for node in graph.node:
            for inner in subgraphs(node):
                self.rewrite(inner, table)
            old = [attribute for attribute in node.attribute if attribute.name != "consumed_inputs"]
            if len(old) < len(node.attribute):
                del node.attribute[:]
                node.attribute.extend(old)
            rule = table.get(node.op_type)
            nodes += [node] if rule is None else rule(self, node)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self._made)
        self._made = outer

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_opset{self._count}"

    def constant(self, values: Any, dtype: npt.DTypeLike = np.int64) -> str:
        """The name of a new constant."""
        name = self.fresh("constant")
        self._made.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def value(self, name: str) -> npt.NDArray[Any] | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def dims(self, name: str, node: onnx.NodeProto) -> list[int]:
        """The shape of a tensor, 0 where a size is not fixed. Raises `_Unknown` where its rank is not known."""
        if name in self.constants:
            return list(self.constants[name].dims)
        kind = self.types.get(name)
        if kind is None or not kind.HasField("shape"):
            raise _Unknown(f"{node.op_type} of opset {self.source} over {name!r}, whose rank is not declared")
        return [d.dim_value for d in kind.shape.dim]

    def dtype(self, name: str) -> npt.DTypeLike:
        kind = self.constants[name].data_type if name in self.constants else self.types[name].elem_type
        return helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.FLOAT)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in the attributes of a node: branches and bodies."""
    return [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def take(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The attribute `name` of a node, which loses it."""
    for i, attribute in enumerate(node.attribute):
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            del node.attribute[i]
            return value
    return default


def _to_input(name: str) -> Callable[[_Scope, onnx.NodeProto], Nodes]:
    """A list of integers moves from the attribute `name` to the second input."""

    def rule(scope: _Scope, node: onnx.NodeProto) -> Nodes:
        values = take(node, name)
        if values is not None:
            node.input[1:] = [scope.constant(values)]
        return [node]

    return rule


def _softmax(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Before 13: over all axes from `axis` on, together."""
    axis = take(node, "axis", 1)
    node.attribute.append(helper.make_attribute("axis", -1))
    try:
        rank = len(scope.dims(node.input[0], node))
    except _Unknown:
        rank = 0
    if axis == -1 or axis + 1 == rank:
        return [node]
    flat, done, shape = (scope.fresh(node.output[0]) for _ in range(3))
    before = [
        helper.make_node("Shape", [node.input[0]], [shape]),
        helper.make_node("Flatten", [node.input[0]], [flat], axis=axis),
    ]
    after = helper.make_node("Reshape", [done, shape], [node.output[0]])
    node.input[0], node.output[0] = flat, done
    return [*before, node, after]


def _resize(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Upsample, and Resize before 11: corners are not aligned; nearest is rounded down to grow and up to shrink."""
    if scope.source >= 11:
        return [node]
    mode = take(node, "mode", b"nearest")
    scales = take(node, "scales")
    if scales is None and scope.source < 7:
        scales = [1.0, 1.0, take(node, "height_scale"), take(node, "width_scale")]
    name = node.input[1] if scales is None else scope.constant(scales, np.float32)
    known = scope.value(name) if scales is None else np.asarray(scales, np.float32)
    parts = [(name, b"floor")]
    if mode == b"nearest" and node.op_type == "Resize":
        if known is None:
            raise _Unknown(f"Resize of opset {scope.source} by scales that are computed in the graph")
        both = ((np.maximum(known, 1), b"floor"), (np.minimum(known, 1), b"ceil"))
        parts = [(scope.constant(part, np.float32), way) for part, way in both if (part != 1).any()] or parts
    nodes, source = [], node.input[0]
    for i, (scale, way) in enumerate(parts):
        end = node.output[0] if i == len(parts) - 1 else scope.fresh(node.output[0])
        new = helper.make_node("Resize", [source, "", scale], [end], coordinate_transformation_mode="asymmetric")
        chosen = {"mode": b"nearest", "nearest_mode": way} if mode == b"nearest" else {"mode": b"linear"}
        new.attribute.extend(helper.make_attribute(key, value) for key, value in chosen.items())
        nodes.append(new)
        source = end
    return nodes


def _clip(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 11:
        low, high = take(node, "min"), take(node, "max")
        kind = scope.dtype(node.input[0])
        node.input.extend("" if bound is None else scope.constant(bound, kind) for bound in (low, high))
    return [node]


def _pad(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 11:
        value, pads = take(node, "value", 0.0), take(node, "pads", None)
        pads = take(node, "paddings") if pads is None else pads
        node.input.extend([scope.constant(pads), scope.constant(value, scope.dtype(node.input[0]))])
    return [node]


def _slice(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 10:
        parts = [take(node, name) for name in ("starts", "ends", "axes")]
        node.input.extend(scope.constant(part) for part in parts if part is not None)
    return [node]


def _top_k(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    k = take(node, "k")
    if k is not None:
        node.input.append(scope.constant([k]))
    return [node]


def _batch_norm(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Before 9, `spatial` 0 had statistics for each place of a channel; before 7, `is_test` 0 was training."""
    tested, spatial = take(node, "is_test", 1 if scope.source >= 7 else 0), take(node, "spatial", 1)
    if not tested:
        raise _Unknown("BatchNormalization in training mode (is_test = 0)")
    if spatial:
        return [node]
    x, scale, bias, mean, variance = node.input[:5]
    names = [scope.fresh(node.output[0]) for _ in range(5)]
    epsilon = scope.constant(take(node, "epsilon", 1e-5), scope.dtype(variance))
    return [
        helper.make_node("Sub", [x, mean], [names[0]]),
        helper.make_node("Add", [variance, epsilon], [names[1]]),
        helper.make_node("Sqrt", [names[1]], [names[2]]),
        helper.make_node("Div", [names[0], names[2]], [names[3]]),
        helper.make_node("Mul", [names[3], scale], [names[4]]),
        helper.make_node("Add", [names[4], bias], [node.output[0]]),
    ]


def _dropout(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 12:
        if not take(node, "is_test", 1 if scope.source >= 7 else 0):
            raise _Unknown("Dropout in training mode (is_test = 0), which draws random numbers")
        take(node, "ratio")
    return [node]


def _broadcast(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Before 7, the axes of the second input could begin at `axis` of the first."""
    wanted, axis = take(node, "broadcast", 0), take(node, "axis")
    if not wanted or axis is None:
        return [node]
    first, second = (len(scope.dims(name, node)) for name in node.input)
    behind = first - axis % first - second
    return _widened(scope, node, behind)


def _prelu(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Before 7, a slope of one axis was that of the channels."""
    slope = scope.dims(node.input[1], node) if scope.source < 7 else []
    if len(slope) != 1 or slope[0] == 1:
        return [node]
    return _widened(scope, node, len(scope.dims(node.input[0], node)) - 2)


def _widened(scope: _Scope, node: onnx.NodeProto, behind: int) -> Nodes:
    """`node` after its second input got that many axes of size 1 behind its own."""
    if behind <= 0:
        return [node]
    rank, name = len(scope.dims(node.input[1], node)), scope.fresh(node.input[1])
    axes = scope.constant(range(rank, rank + behind))
    before = helper.make_node("Unsqueeze", [node.input[1], axes], [name])
    node.input[1] = name
    return [before, node]


def _gemm(_: _Scope, node: onnx.NodeProto) -> Nodes:
    take(node, "broadcast")
    return [node]


def _concat(_: _Scope, node: onnx.NodeProto) -> Nodes:
    node.attribute.append(helper.make_attribute("axis", take(node, "axis", 1)))
    return [node]


def _cast(_: _Scope, node: onnx.NodeProto) -> Nodes:
    to = take(node, "to")
    kind = onnx.TensorProto.DataType.Value(to.decode()) if isinstance(to, bytes) else to
    node.attribute.append(helper.make_attribute("to", kind))
    return [node]


def _scatter(_: _Scope, node: onnx.NodeProto) -> Nodes:
    node.op_type = "ScatterElements"
    return [node]


def _split(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 18 and len(node.input) < 2 and not any(a.name == "num_outputs" for a in node.attribute):
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    return [node]


def _roi_align(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 16:
        node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "output_half_pixel"))
    return [node]


def _grid_sample(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 20:
        names = {b"bilinear": b"linear", b"bicubic": b"cubic"}
        mode = take(node, "mode", b"bilinear")
        node.attribute.append(helper.make_attribute("mode", names.get(mode, mode)))
    return [node]


def _dft(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    if scope.source < 20:
        axis = scope.constant(take(node, "axis", 1))
        node.input[:] = [node.input[0], node.input[1] if len(node.input) > 1 else "", axis]
    return [node]


def _group_norm(scope: _Scope, node: onnx.NodeProto) -> Nodes:
    """Before 21, scale and bias were those of the groups."""
    if scope.source < 21:
        groups = next(a.i for a in node.attribute if a.name == "num_groups")
        channels = scope.dims(node.input[0], node)[1]
        for i in (1, 2):
            value = scope.value(node.input[i])
            if value is None or not channels:
                raise _Unknown(f"GroupNormalization of opset {scope.source} with scales computed in the graph")
            node.input[i] = scope.constant(np.repeat(value, channels // groups), value.dtype)
    return [node]


_AXES = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
)
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
_TO_13: dict[str, Callable[[_Scope, onnx.NodeProto], Nodes]] = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("Upsample", "Resize"), _resize),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), _to_input("axes")),
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
    "Split": _to_input("split"), "Reshape": _to_input("shape"), "Clip": _clip, "Pad": _pad, "Slice": _slice,
    "TopK": _top_k, "BatchNormalization": _batch_norm, "Dropout": _dropout, "PRelu": _prelu, "Gemm": _gemm,
    "Concat": _concat, "Cast": _cast, "Scatter": _scatter,
}  # fmt: skip
_TO_22: dict[str, Callable[[_Scope, onnx.NodeProto], Nodes]] = {
    **dict.fromkeys((*_AXES, "ReduceSumSquare"), _to_input("axes")),
    "Split": _split, "RoiAlign": _roi_align, "GridSample": _grid_sample, "DFT": _dft,
    "GroupNormalization": _group_norm,
}  # fmt: skip
