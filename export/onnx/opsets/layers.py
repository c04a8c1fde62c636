"""Layers that computed something else: over other axes, with other statistics, or in training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from dualsmooth.export.onnx.nodes import take
from dualsmooth.export.onnx.opsets.scope import Nodes, Scope, Unknown


def softmax(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """It was over all axes from `axis` on, together."""
    axis = take(node, "axis", 1)
    node.attribute.append(helper.make_attribute("axis", -1))
    try:
        rank = len(scope.dims(node.input[0], node))
    except Unknown:
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


def batch_norm(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """`spatial` 0 had statistics for each place of a channel; before 7, `is_test` 0 was training."""
    tested, spatial = take(node, "is_test", 1 if scope.source >= 7 else 0), take(node, "spatial", 1)
    if not tested:
        raise Unknown("BatchNormalization in training mode (is_test = 0)")
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


def dropout(scope: Scope, node: onnx.NodeProto) -> Nodes:
    if not take(node, "is_test", 1 if scope.source >= 7 else 0):
        raise Unknown("Dropout in training mode (is_test = 0), which draws random numbers")
    take(node, "ratio")
    return [node]


def group_norm(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """Scale and bias were those of the groups."""
    groups = next(a.i for a in node.attribute if a.name == "num_groups")
    channels = scope.dims(node.input[0], node)[1]
    for i in (1, 2):
        value = scope.value(node.input[i])
        if value is None or not channels:
            raise Unknown(f"GroupNormalization of opset {scope.source} with scales computed in the graph")
        node.input[i] = scope.constant(np.repeat(value, channels // groups), value.dtype)
    return [node]
