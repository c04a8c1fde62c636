"""A wide, shallow residual network that CPUs and GPUs both keep busy with: few layers, many channels, plain operators.

Batch normalisation folds into the convolutions when it is exported, and every activation is a ReLU: friendly to int8.
The plan is that of the fast CIFAR-10 trainings (D. Page, "How to train your ResNet", 2018), at 3/4 of its width.
"""

from __future__ import annotations

import torch
from torch import nn

from dualsmooth.training.networks.network import Kind, ModelSpec

_FEATURES = (48, 96, 192, 384)


class Pair(nn.Module):
    """Two 3x3 convolutions, and what went into them added to what comes out."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_convolution(features, features), _convolution(features, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = x + self.inner(x)
        return added


def _trunk(spec: ModelSpec) -> tuple[nn.Module, int]:
    """3x3 convolutions to 48, 96, 192 and 384 features, the last three each before a pooling by 2, a residual pair at
    96 and at 384, and the mean: 3.7 M parameters at width 1. Depth multiplies the pairs. Images may have any size."""
    first, second, third, fourth = (max(1, round(features * spec.width)) for features in _FEATURES)
    pairs = max(1, round(spec.depth))
    trunk = nn.Sequential(
        _convolution(spec.input_shape[0], first),
        _convolution(first, second), _pool(), *(Pair(second) for _ in range(pairs)),
        _convolution(second, third), _pool(),
        _convolution(third, fourth), _pool(), *(Pair(fourth) for _ in range(pairs)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return trunk, fourth


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, ceil_mode=True)


RESNET9 = Kind("resnet9", "resnet9", lambda name: name == "resnet9", _trunk)
