"""What nodes hold: attributes, and graphs inside of them."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper


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
