"""ONNX files as other tools write them, in one plain form: sorted, inlined, constants as constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import AttributeProto, helper, numpy_helper

from dualsmooth.export.onnx.graph import strip
from dualsmooth.export.onnx.nodes import subgraphs
from dualsmooth.runtime.errors import BundleError, InputError, one_line
from dualsmooth.runtime.graphs.foreign_files import foreign


def read_plain(path: Path) -> onnx.ModelProto:
    """The model in the file `path`, external data included, in plain form; what it computes is the same.

    Functions are inlined, nodes sorted, sparse constants made dense, idle domains and what is for training dropped.
    Constants that are inputs as well (IR version 3, or defaults) are constants only, and the IR version says so.
    Raises `InputError` for a file that cannot be read, `BundleError` for operators of other domains.
    """
    try:
        model = onnx.load(path)
        if not model.HasField("graph"):
            raise ValueError("it holds no graph")
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        model = strip(model)
        sort_nodes(model.graph)
    except Exception as error:
        said = foreign(path, guess=True)
        raise InputError(said or f"cannot read {path} as ONNX ({one_line(error)}); pass an ONNX file") from error
    model.ClearField("training_info")
    model.graph.ClearField("quantization_annotation")
    drop_idle_domains(model, path)
    for sparse in model.graph.sparse_initializer:
        model.graph.initializer.append(_dense(sparse))
    model.graph.ClearField("sparse_initializer")
    constants_as_tensors(model.graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4, helper.find_min_ir_version_for(model.opset_import))
    return model


def drop_idle_domains(model: onnx.ModelProto, path: Path | str) -> None:
    """Keep the import of the default domain alone. Raises `BundleError` where another one is used."""

    def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        return [n for node in graph.node for n in (node, *(m for inner in subgraphs(node) for m in nodes(inner)))]

    other = sorted((node.domain, node.op_type) for node in nodes(model.graph) if node.domain not in ("", "ai.onnx"))
    if other:
        domain, op = other[0]
        raise BundleError(f"{path} needs {op} of the domain {domain!r}; use standard ONNX operators only")
    kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not kept:
        raise BundleError(f"{path} does not say which operator set it uses; export it again with opset 13 or newer")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", kept[0].version))


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Order the nodes so that each comes after what it reads, in the graphs inside as well, otherwise as they were.

    Raises `ValueError` where they form a ring.
    """
    made = {name for node in graph.node for name in node.output if name}
    ready: set[str] = set()
    waiting, done = list(graph.node), []
    needs = [(_read(node) & made, node) for node in waiting]
    while needs:
        left = []
        for need, node in needs:
            if need <= ready:
                done.append(node)
                ready.update(node.output)
            else:
                left.append((need, node))
        if len(left) == len(needs):
            raise ValueError(f"its nodes form a ring at {left[0][1].op_type} {left[0][1].name!r}")
        needs = left
    if done != waiting:
        del graph.node[:]
        graph.node.extend(done)
    for node in graph.node:
        for inner in subgraphs(node):
            sort_nodes(inner)


def _read(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, with those that the graphs inside of it read from outside."""
    return (
        {name for name in node.input if name}
        | {name for inner in subgraphs(node) for n in inner.node for name in _read(n)}
        | {value.name for inner in subgraphs(node) for value in inner.output}
    )


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    where = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), dense.shape)
    dense.reshape(-1)[where] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def constants_as_tensors(graph: onnx.GraphProto) -> None:
    """Give Constant nodes of numbers, lists or sparse tensors (value_float, value_ints ...) a tensor."""
    for node in graph.node:
        attribute = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if attribute is not None and attribute.name == "sparse_value":
            node.attribute[0].CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor)))
        elif attribute is not None and attribute.type in _KINDS:
            values = np.asarray(helper.get_attribute_value(attribute), _KINDS[attribute.type])
            node.attribute[0].CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))
        for inner in subgraphs(node):
            constants_as_tensors(inner)


_KINDS = {
    AttributeProto.FLOAT: np.float32, AttributeProto.FLOATS: np.float32,
    AttributeProto.INT: np.int64, AttributeProto.INTS: np.int64,
}  # fmt: skip
