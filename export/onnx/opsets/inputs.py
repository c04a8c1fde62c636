"""What was an attribute is an input now."""

from __future__ import annotations

import onnx

from dualsmooth.export.onnx.nodes import take
from dualsmooth.export.onnx.opsets.scope import Nodes, Rule, Scope


def to_input(name: str) -> Rule:
    """A list of integers moves from the attribute `name` to the second input."""

    def rule(scope: Scope, node: onnx.NodeProto) -> Nodes:
        values = take(node, name)
        if values is not None:
            node.input[1:] = [scope.constant(values)]
        return [node]

    return rule


def clip(scope: Scope, node: onnx.NodeProto) -> Nodes:
    low, high = take(node, "min"), take(node, "max")
    kind = scope.dtype(node.input[0])
    node.input.extend("" if bound is None else scope.constant(bound, kind) for bound in (low, high))
    return [node]


def pad(scope: Scope, node: onnx.NodeProto) -> Nodes:
    value, pads = take(node, "value", 0.0), take(node, "pads", None)
    pads = take(node, "paddings") if pads is None else pads
    node.input.extend([scope.constant(pads), scope.constant(value, scope.dtype(node.input[0]))])
    return [node]


def slice_(scope: Scope, node: onnx.NodeProto) -> Nodes:
    parts = [take(node, name) for name in ("starts", "ends", "axes")]
    node.input.extend(scope.constant(part) for part in parts if part is not None)
    return [node]


def top_k(scope: Scope, node: onnx.NodeProto) -> Nodes:
    node.input.append(scope.constant([take(node, "k")]))
    return [node]


def dft(scope: Scope, node: onnx.NodeProto) -> Nodes:
    axis = scope.constant(take(node, "axis", 1))
    node.input[:] = [node.input[0], node.input[1] if len(node.input) > 1 else "", axis]
    return [node]
