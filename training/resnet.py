"""Residual networks for small images (He et al. 2016, section 4.2): 6n + 2 layers, three stages of n blocks."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def residual_trunk(channels: int, width: float, blocks: int) -> tuple[nn.Module, int]:
    """A trunk of `blocks` blocks at each of 16, 32 and 64 times `width` features, for images [N,channels,H,W] of any
    size, and the number of its features."""
    features = max(1, round(16 * width))
    layers: list[nn.Module] = [_convolution(channels, features, 3, 1), nn.ReLU(inplace=True)]
    before = features
    for stage in range(3):
        features = max(1, round(16 * 2**stage * width))
        for number in range(blocks):
            layers.append(Block(before, features, 2 if stage and not number else 1))
            before = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), features


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
