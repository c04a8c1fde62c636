"""An attribute has another name, type or default now, or is gone."""

from __future__ import annotations

import onnx
from onnx import helper

from dualsmooth.export.onnx.nodes import take
from dualsmooth.export.onnx.opsets.scope import Nodes, Scope


def gemm(_: Scope, node: onnx.NodeProto) -> Nodes:
    take(node, "broadcast")
    return [node]


def concat(_: Scope, node: onnx.NodeProto) -> Nodes:
    node.attribute.append(helper.make_attribute("axis", take(node, "axis", 1)))
    return [node]


def cast(_: Scope, node: onnx.NodeProto) -> Nodes:
    to = take(node, "to")
    kind = onnx.TensorProto.DataType.Value(to.decode()) if isinstance(to, bytes) else to
    node.attribute.append(helper.make_attribute("to", kind))
    return [node]


def scatter(_: Scope, node: onnx.NodeProto) -> Nodes:
    node.op_type = "ScatterElements"
    return [node]


def split(_: Scope, node: onnx.NodeProto) -> Nodes:
    if len(node.input) < 2 and not any(a.name == "num_outputs" for a in node.attribute):
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    return [node]


def roi_align(_: Scope, node: onnx.NodeProto) -> Nodes:
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "output_half_pixel"))
    return [node]


def grid_sample(_: Scope, node: onnx.NodeProto) -> Nodes:
    names = {b"bilinear": b"linear", b"bicubic": b"cubic"}
    mode = take(node, "mode", b"bilinear")
    node.attribute.append(helper.make_attribute("mode", names.get(mode, mode)))
    return [node]
