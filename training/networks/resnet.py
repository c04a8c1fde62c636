"""Residual networks for small images (He et al. 2016, section 4.2): 6n + 2 layers, three stages of n blocks."""

from __future__ import annotations

import re

import torch
from torch import nn

from dualsmooth.training.networks.network import Kind, ModelSpec


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


class ResidualNetwork(nn.Module):
    """`residual_trunk` and a linear head, without a normalisation, to be filled with published weights."""

    def __init__(self, channels: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.trunk, features = residual_trunk(channels, 1.0, blocks)
        self.head = nn.Linear(features, outputs)
        self._blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.trunk(x))
        return logits

    def published_names(self) -> dict[str, str]:
        """Our name of each weight to the one that it has in most code for CIFAR: conv1, bn1, layer1.0.conv1, …, fc."""
        parts = {"first.0": "conv1", "first.1": "bn1", "second.0": "conv2", "second.1": "bn2"}
        names = {}
        for own in self.state_dict():
            if found := re.fullmatch(r"trunk\.0\.([01])\.(.+)", own):
                names[own] = f"{('conv1', 'bn1')[int(found[1])]}.{found[2]}"
            elif found := re.fullmatch(r"trunk\.(\d+)\.(\w+\.\d)\.(.+)", own):
                stage, number = divmod(int(found[1]) - 2, self._blocks)
                part = parts.get(found[2], found[2].replace("shortcut", "downsample"))
                names[own] = f"layer{stage + 1}.{number}.{part}.{found[3]}"
            else:
                names[own] = own.replace("head.", "fc.")
        return names


class _Convolution(nn.Conv2d):
    """A convolution whose backward pass keeps to its memory.

    torch 2.14.1 (oneDNN) writes beyond it, on processors with AVX2 and no AVX-512, where a 1x1 convolution has a
    stride and fewer than eight channels, last in memory. What its stride leaves out is left out beforehand there.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.stride[0]
        if self.training and self.kernel_size == (1, 1) and step > 1 and self.in_channels % 8:
            return nn.functional.conv2d(x[:, :, ::step, ::step], self.weight)
        return super().forward(x)


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    convolution = _Convolution(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def blocks_of(name: str) -> int:
    """The number n of blocks in each stage of `resnetL` with L = 6n + 2 layers; 0 for any other name."""
    found = re.fullmatch(r"resnet(\d{1,4})", name)
    blocks, rest = divmod(int(found[1]) - 2, 6) if found else (0, 0)
    return blocks if rest == 0 and blocks > 0 else 0


def _trunk(spec: ModelSpec) -> tuple[nn.Module, int]:
    """`resnetL` with n blocks in each of three stages; depth multiplies n."""
    return residual_trunk(spec.input_shape[0], spec.width, max(1, round(blocks_of(spec.name) * spec.depth)))


RESNET = Kind(
    "resnet20, resnet110 (any resnetL with L = 6n + 2)", "resnet8", lambda name: blocks_of(name) > 0, _trunk
)  # fmt: skip
