"""A differentiable twin of a base model: the ONNX graph's own weights, run node by node in PyTorch.

Knows the operators that our exporter writes for convolutional networks, and refuses all others. `checked_twin` compares
it with ONNX Runtime before anybody relies on its gradients.
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
PARITY = 1e-3
"""Largest difference of a logit between the twin and ONNX Runtime, relative to the largest logit."""


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

    Raises `InputError` where they differ by more than `PARITY`.
    """
    members = [twin_of(smoother.bundle.path / name) for name in model.members]
    x = np.random.default_rng(0).normal(0.5, 0.7, (64, *smoother.bundle.input_shape)).astype(np.float32)
    for name, member in zip(model.members, members, strict=True):
        theirs = smoother.engine.logits(name, x, 0.0, width)
        difference = np.abs(member(torch.from_numpy(x)).numpy() - theirs).max() / np.abs(theirs).max()
        if not difference <= PARITY:
            raise InputError(f"the twin of {name} differs from ONNX Runtime by {difference:.2g}; expected {PARITY:g}")
    return lambda images: torch.stack([member(images) for member in members]).mean(0)
