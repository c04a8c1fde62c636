"""Channels last: networks that take [N,H,W,C], as TensorFlow's do, get a transpose in front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from dualsmooth.runtime.errors import InputError

LAYOUTS = ("nchw", "nhwc")
FIX = "pass --layout nhwc (or layout='nhwc'), which puts a transpose in front"


def looks_channels_last(dims: Sequence[int]) -> bool:
    """Whether the last of three declared sizes can only be the channels: 1, 3 or 4 behind a square or wide image."""
    first, _, last = dims
    return last in (1, 3, 4) and first not in (1, 3, 4)


def image_shape(dims: Sequence[int], layout: str, path: Path) -> tuple[int, int, int]:
    """[C,H,W] of a network whose image input declares `dims` behind the batch. Raises `InputError`."""
    a, b, c = dims
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown; expected {' or '.join(LAYOUTS)}")
    if layout == "nchw" and looks_channels_last(dims):
        raise InputError(f"{path} takes images [N,{a},{b},{c}], channels last; {FIX}, or pass --input-shape C,H,W")
    return (c, a, b) if layout == "nhwc" and not looks_channels_last((c, b, a)) else (a, b, c)


def channels_first(model: onnx.ModelProto, shape: tuple[int, int, int], layout: str) -> bool:
    """With `layout` nhwc, let the network take [N,C,H,W] of `shape`; one that fits only channels first is left. Returns
    whether it took channels last."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if layout != "nhwc" or value.name in constants or len(sizes) != 4:
            continue
        channels, height, width = shape
        wanted = zip(list(sizes)[1:], (height, width, channels), strict=True)
        if any(d.dim_value not in (0, size) for d, size in wanted):
            continue
        inner = f"{value.name}_channels_last"
        for node in model.graph.node:
            node.input[:] = [inner if name == value.name else name for name in node.input]
        for dim, size in zip(list(sizes)[1:], shape, strict=True):
            dim.Clear()
            dim.dim_value = size
        model.graph.node.insert(0, helper.make_node("Transpose", [value.name], [inner], perm=[0, 2, 3, 1]))
        return True
    return False
