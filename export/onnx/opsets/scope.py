"""What a rule is, and what rules know of the graph that they rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from dualsmooth.export.onnx.nodes import subgraphs

Nodes = list[onnx.NodeProto]


class Unknown(Exception):
    """What has no newer form here."""


class Scope:
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

    def rewrite(self, graph: onnx.GraphProto, table: Mapping[str, Rule]) -> None:
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
        """The shape of a tensor, 0 where a size is not fixed. Raises `Unknown` where its rank is not known."""
        if name in self.constants:
            return list(self.constants[name].dims)
        kind = self.types.get(name)
        if kind is None or not kind.HasField("shape"):
            raise Unknown(f"{node.op_type} of opset {self.source} over {name!r}, whose rank is not declared")
        return [d.dim_value for d in kind.shape.dim]

    def dtype(self, name: str) -> npt.DTypeLike:
        kind = self.constants[name].data_type if name in self.constants else self.types[name].elem_type
        return helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.FLOAT)


Rule = Callable[[Scope, onnx.NodeProto], Nodes]
"""The nodes that compute in the newer form what one node computes; it may change that node, and may raise `Unknown`."""
