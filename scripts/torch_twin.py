"""A differentiable twin of a base model: the ONNX graph's own weights, run node by node in PyTorch.

Knows the operators that our exporter writes for convolutional networks, and refuses all others. What an int8 graph
rounds is rounded here too, and its gradient is that of what was rounded (straight through; Bengio et al. 2013).
`checked_twin` compares it with ONNX Runtime before anybody relies on its gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.smoothing.smoother import Smoother

Twin = Callable[[torch.Tensor], torch.Tensor]
Values = Sequence[Any]
PARITY, ROUNDED = 1e-3, 0.05
"""Largest difference of a logit between the twin and ONNX Runtime, relative to the largest logit; and that of an int8
graph, where a sum in another order can end at the next step."""


def _conv(a: dict[str, Any], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise InputError(f"convolution with pads {pads}; expected the same on both sides")
    return functional.conv2d(
        x, weight, bias, stride=a.get("strides", 1), padding=tuple(pads[:2]), dilation=a.get("dilations", 1),
        groups=a.get("group", 1),
    )  # fmt: skip


def _gemm(a: dict[str, Any], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if a.get("transA", 0) or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
        raise InputError(f"Gemm with {a}; expected x @ w + b")
    return x @ (weight.T if a.get("transB", 0) else weight) + bias


def _reshape(a: dict[str, Any], x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.reshape([size if size else x.shape[i] for i, size in enumerate(shape.tolist())])


def _pool(a: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    size, pads = a["kernel_shape"], a.get("pads", [0, 0, 0, 0])
    if any(pads) or a.get("auto_pad", b"NOTSET") != b"NOTSET" or any(d != 1 for d in a.get("dilations", [])):
        raise InputError(f"pooling with {a}; expected neither pads nor dilations")
    return functional.max_pool2d(x, size, a.get("strides", [1, 1]), ceil_mode=bool(a.get("ceil_mode", 0)))


def _along(values: torch.Tensor, axis: int, like: torch.Tensor) -> torch.Tensor:
    """Scales or zero points as they are multiplied with `like`: one number, or one for each place of `axis`."""
    if values.ndim == 0:
        return values.float()
    return values.float().reshape([-1 if place == axis else 1 for place in range(like.ndim)])


def _quantize(a: dict[str, Any], x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """The number that the rounded one stands for; `_dequantize` then leaves it as it is."""
    limits, axis = torch.iinfo(zero.dtype), a.get("axis", 1)
    step, offset = _along(scale, axis, x), _along(zero, axis, x)
    rounded = ((x / step).round() + offset).clamp(limits.min, limits.max)
    kept = x.clamp((limits.min - offset) * step, (limits.max - offset) * step)  # nothing comes through a clipped one
    return kept + ((rounded - offset) * step - kept).detach()


def _dequantize(a: dict[str, Any], x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    if x.is_floating_point():
        return x
    axis = a.get("axis", 1)
    return (x.float() - _along(zero, axis, x)) * _along(scale, axis, x)


OPERATORS: dict[str, Callable[..., torch.Tensor]] = {
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Relu": lambda a, x: functional.relu(x),
    "Conv": _conv,
    "Gemm": _gemm,
    "Flatten": lambda a, x: x.flatten(1),
    "Reshape": _reshape,
    "MaxPool": _pool,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "ReduceMean": lambda a, x, axes: x.mean(tuple(axes.tolist()), keepdim=bool(a.get("keepdims", 1))),
}


def twin_of(path: Path) -> Twin:
    """The function x [N,C,H,W] -> logits [N,width] of one ONNX file. Raises `InputError` for what it cannot run."""
    graph = onnx.load(str(path)).graph
    constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    unknown = sorted({node.op_type for node in graph.node} - set(OPERATORS))
    if unknown or [i.name for i in graph.input] != ["x"]:
        raise InputError(f"{path.name} has {unknown} or inputs beside x; the twin runs {', '.join(OPERATORS)}")
    steps = [
        (OPERATORS[n.op_type], {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}, n.input, n.output[0])
        for n in graph.node
    ]

    def run(x: torch.Tensor) -> torch.Tensor:
        values = {**constants, "x": x}
        for operator, attributes, inputs, output in steps:
            values[output] = operator(attributes, *(values[name] for name in inputs if name))
        return values["logits"]

    return run


def checked_twin(smoother: Smoother, model: BaseModel, width: int) -> Twin:
    """The twin of a base model (of an ensemble: mean logits), after a comparison with ONNX Runtime on noisy inputs.

    Raises `InputError` where they differ by more than `PARITY` (`ROUNDED` in int8).
    """
    most = ROUNDED if smoother.bundle.precision == "int8" else PARITY
    members = [twin_of(smoother.bundle.path / name) for name in model.members]
    x = np.random.default_rng(0).normal(0.5, 0.7, (64, *smoother.bundle.input_shape)).astype(np.float32)
    for name, member in zip(model.members, members, strict=True):
        theirs = smoother.engine.logits(name, x, 0.0, width)
        difference = np.abs(member(torch.from_numpy(x)).numpy() - theirs).max() / np.abs(theirs).max()
        if not difference <= most:
            raise InputError(f"the twin of {name} differs from ONNX Runtime by {difference:.2g}; expected {most:g}")
    return lambda images: torch.stack([member(images) for member in members]).mean(0)
