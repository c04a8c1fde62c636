"""A graph that fixes the size of its batch, by a number or by its reshapes, made dynamic in the batch."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dualsmooth.export.onnx.graph import INPUT


def free_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of `model` (a base model that takes `batch` images) in which what holds that number takes any instead.

    A guess: reshapes take the batch from what is left over, constants beside images are repeated for each image.
    Whether it computes the same for each image is for the caller to check.
    """
    free = onnx.ModelProto()
    free.CopyFrom(model)
    graph = free.graph
    image = next(value for value in graph.input if value.name == INPUT)
    dims = image.type.tensor_type.shape.dim
    dims[0].dim_value = batch
    try:
        known = _shapes(onnx.shape_inference.infer_shapes(free, data_prop=True).graph)
    except Exception:  # what is not known stays as it is
        known = {}
    seen = _reached(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += [*_freed(graph, node, batch, known, seen), node]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (image, graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return free


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Shapes of which all sizes are known."""
    found: dict[str, list[int]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and all(size > 0 for size in sizes):
            found[value.name] = sizes
    return found


def _reached(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that depend on the image, other than by its shape alone."""
    seen = {INPUT}
    for node in graph.node:
        if node.op_type not in ("Shape", "Size", "ConstantOfShape") and seen & set(node.input):
            seen |= set(node.output)
    return seen


def _freed(
    graph: onnx.GraphProto, node: onnx.NodeProto, batch: int, known: dict[str, list[int]], seen: set[str]
) -> Iterator[onnx.NodeProto]:
    """Changes `node`; yields the nodes that it needs before it."""
    op, sizes = node.op_type, known.get(node.output[0])
    if op == "Reshape" and node.input[0] in seen:
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        wanted = sizes
        if wanted is None:  # 0: as the input has it
            shape = next((numpy_helper.to_array(t) for t in graph.initializer if t.name == node.input[1]), None)
            wanted = None if shape is None or not len(shape) or shape[0] != batch else [0, *shape[1:].tolist()]
        elif wanted:
            wanted = [-1, *wanted[1:]]
        if wanted:
            del node.attribute[:]
            node.attribute.extend(kept)
            node.input[1] = _constant(graph, node, wanted)
    elif op == "Resize" and len(node.input) > 3 and sizes and not any(a.name == "axes" for a in node.attribute):
        count = yield from _batch(graph, node)
        yield helper.make_node(
            "Concat", [count, _constant(graph, node, sizes[1:])], [f"{node.output[0]}_sizes"], axis=0
        )
        node.input[3] = f"{node.output[0]}_sizes"
    elif op == "Concat" and seen & set(node.input) and _axis(node, known) != 0:
        yield from _repeated(graph, node, range(len(node.input)), 0, batch, known, seen)
    elif op in ("LSTM", "GRU", "RNN") and node.input[0] in seen:
        yield from _repeated(graph, node, [i for i in (5, 6) if i < len(node.input)], 1, batch, known, seen)


def _axis(node: onnx.NodeProto, known: dict[str, list[int]]) -> int:
    axis: int = next((a.i for a in node.attribute if a.name == "axis"), 1)
    return axis + len(known.get(node.output[0], ())) if axis < 0 else axis


def _constant(graph: onnx.GraphProto, node: onnx.NodeProto, values: list[int]) -> str:
    name = f"{node.output[0]}_sizes_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
    return name


def _batch(graph: onnx.GraphProto, node: onnx.NodeProto) -> Generator[onnx.NodeProto, None, str]:
    """Nodes that give the size of the batch, as a list of one; returns its name."""
    name = f"{node.output[0]}_batch"
    first = _constant(graph, node, [0])
    yield helper.make_node("Shape", [INPUT], [f"{name}_shape"])
    yield helper.make_node("Gather", [f"{name}_shape", first], [name], axis=0)
    return name


def _repeated(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    places: range | list[int],
    axis: int,
    batch: int,
    known: dict[str, list[int]],
    seen: set[str],
) -> Iterator[onnx.NodeProto]:
    """Inputs of `node` that no image reaches, repeated along `axis` where that has size 1 = `batch`."""
    count = ""
    for i in places:
        name = node.input[i]
        sizes = known.get(name)
        if batch != 1 or name in seen or not name or sizes is None or len(sizes) <= axis or sizes[axis] != 1:
            continue
        if not count:
            count = yield from _batch(graph, node)
        wide, shape = f"{node.output[0]}_wide_{i}", f"{node.output[0]}_shape_{i}"
        parts = [_constant(graph, node, [1] * k) for k in (axis, len(sizes) - axis - 1)]
        yield helper.make_node("Concat", [parts[0], count, parts[1]], [shape], axis=0)
        yield helper.make_node("Expand", [name, shape], [wide])
        node.input[i] = wide
