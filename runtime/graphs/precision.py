"""The precision of a graph: what its arithmetic is, seen from its element types."""

from __future__ import annotations

from collections.abc import Iterable

from dualsmooth.runtime.graphs.known import words
from dualsmooth.runtime.graphs.model import Graph, Node

PRECISIONS = ("fp64", "fp32", "w8", "w4", "fp16", "bf16", "int8")
"""What a manifest may say, from wide to narrow. w8, w4: fp32 arithmetic on weights that are stored in 8 or 4 bits."""
_FLOATS = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}
_MATRICES = frozenset(words("Attention Conv ConvTranspose DeformConv Einsum GRU Gemm LSTM MatMul RNN"))
_TRUTHS = frozenset(words("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"))
_INTEGER = frozenset(words("ConvInteger MatMulInteger QLinearConv QLinearMatMul"))


def overall(found: Iterable[str]) -> str:
    """The narrowest of several, which is what a bundle of them is called."""
    return max(found, key=PRECISIONS.index)


def precision_of(graph: Graph) -> str:
    """One of `PRECISIONS`: int8 where activations are quantised; else the narrowest float that convolutions and matrix
    products (in graphs without them: any arithmetic) work in; w8 or w4 where just weights are quantised."""
    types = {value.name: value.type for value in graph.inputs}
    types |= {name: tensor.type for name, tensor in graph.constants.items()}
    fixed = set(graph.constants)
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    weights: set[str] = set()
    for node in graph.nodes:
        if all(name in fixed for name in node.inputs if name):
            fixed.update(node.outputs)
        elif node.op in _INTEGER or node.op == "QuantizeLinear":
            return "int8"
        if node.op == "DequantizeLinear" and node.inputs[0] in fixed:
            weights.add("w4" if types.get(node.inputs[0]) in (21, 22) else "w8")
        kind = _type(node, types)
        types.update(dict.fromkeys(node.outputs, kind))
        if kind in _FLOATS and node.op not in ("Cast", "Constant", "DequantizeLinear") and node.outputs[0] not in fixed:
            seen[node.op in _MATRICES].add(_FLOATS[kind])
    floats = seen[True] or seen[False] or {"fp32"}
    return overall({*floats, *weights} if overall(floats) == "fp32" else floats)


def _type(node: Node, types: dict[str, int]) -> int:
    """The element type of what a node makes; 0 where it is not seen."""
    if node.op == "Cast":
        return node.integer("to", 0)
    if node.op in ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"):
        return 7
    if node.op in _TRUTHS:
        return 9
    if node.op in ("Constant", "ConstantOfShape"):
        return next((tensor.type for tensor in node.tensors()), 1)
    place = {"Where": 1, "DequantizeLinear": 1, "CastLike": 1}.get(node.op, 0)
    return types.get(node.inputs[place], 0) if len(node.inputs) > place else 0
