"""Shapes that were brought together in another way before 7."""

from __future__ import annotations

import onnx
from onnx import helper

from dualsmooth.export.onnx.nodes import take
from dualsmooth.export.onnx.opsets.scope import Nodes, Scope


def broadcast(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """The axes of the second input could begin at `axis` of the first."""
    wanted, axis = take(node, "broadcast", 0), take(node, "axis")
    if not wanted or axis is None:
        return [node]
    first, second = (len(scope.dims(name, node)) for name in node.input)
    behind = first - axis % first - second
    return _widened(scope, node, behind)


def prelu(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """A slope of one axis was that of the channels."""
    slope = scope.dims(node.input[1], node)
    if len(slope) != 1 or slope[0] == 1:
        return [node]
    return _widened(scope, node, len(scope.dims(node.input[0], node)) - 2)


def _widened(scope: Scope, node: onnx.NodeProto, behind: int) -> Nodes:
    """`node` after its second input got that many axes of size 1 behind its own."""
    if behind <= 0:
        return [node]
    rank, name = len(scope.dims(node.input[1], node)), scope.fresh(node.input[1])
    axes = scope.constant(range(rank, rank + behind))
    before = helper.make_node("Unsqueeze", [node.input[1], axes], [name])
    node.input[1] = name
    return [before, node]
