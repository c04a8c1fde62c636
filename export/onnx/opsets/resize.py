"""Upsample and Resize, whose corners and roundings changed in 11."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from dualsmooth.export.onnx.nodes import take
from dualsmooth.export.onnx.opsets.scope import Nodes, Scope, Unknown


def resize(scope: Scope, node: onnx.NodeProto) -> Nodes:
    """Corners were not aligned; nearest was rounded down to grow and up to shrink."""
    mode = take(node, "mode", b"nearest")
    scales = take(node, "scales")
    if scales is None and scope.source < 7:
        scales = [1.0, 1.0, take(node, "height_scale"), take(node, "width_scale")]
    name = node.input[1] if scales is None else scope.constant(scales, np.float32)
    known = scope.value(name) if scales is None else np.asarray(scales, np.float32)
    parts = [(name, b"floor")]
    if mode == b"nearest" and node.op_type == "Resize":
        if known is None:
            raise Unknown(f"Resize of opset {scope.source} by scales that are computed in the graph")
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
