"""Networks by name. Normalisation is inside: every network takes images in [0, 1] plus noise, unnormalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network again: saved in each checkpoint, beside the weights."""

    name: str
    width: float
    outputs: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ModelSpec:
        channels, height, width = values["input_shape"]
        return ModelSpec(
            name=str(values["name"]),
            width=float(values["width"]),
            outputs=int(values["outputs"]),
            input_shape=(int(channels), int(height), int(width)),
            mean=tuple(float(v) for v in values["mean"]),
            std=tuple(float(v) for v in values["std"]),
        )


class Normalise(nn.Module):
    """(x - mean) / std per channel, for x [N,C,H,W]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class Network(nn.Module):
    """Normalisation, a trunk that ends in features [N,F], and a linear head: x [N,C,H,W] to logits [N,outputs]."""

    def __init__(self, normalise: Normalise, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.normalise, self.trunk, self.head = normalise, trunk, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.trunk(self.normalise(x)))
        return logits


def small_cnn(spec: ModelSpec) -> Network:
    """Five convolutions, 0.3 M parameters at width 1: 5x5/2 32, 3x3/2 64, 3x3 64, 3x3/2 128, 3x3 128."""
    layers: list[nn.Module] = []
    channels = spec.input_shape[0]
    for size, stride, features in ((5, 2, 32), (3, 2, 64), (3, 1, 64), (3, 2, 128), (3, 1, 128)):
        features = max(1, round(features * spec.width))
        layers += [
            nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        ]
        channels = features
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(Normalise(spec.mean, spec.std), trunk, nn.Linear(channels, spec.outputs))


MODELS: dict[str, Callable[[ModelSpec], Network]] = {"small-cnn": small_cnn}


def build(spec: ModelSpec) -> Network:
    """The network of `spec`; `initialise` or a checkpoint sets its weights. Raises `InputError` for unknown names."""
    if spec.name not in MODELS:
        raise InputError(f"model {spec.name!r} is unknown; expected one of {', '.join(sorted(MODELS))}")
    return MODELS[spec.name](spec)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of all convolutions and linear layers, drawn from `generator`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def predict(network: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Logits of noisy images [B,C,H,W] whose noise levels are `sigma` [B]."""
    logits: torch.Tensor = network(noisy)
    return logits


def copy_trunk(source: Network, target: Network) -> None:
    """Start `target` from the features of `source`; the heads may differ."""
    target.normalise.load_state_dict(source.normalise.state_dict())
    target.trunk.load_state_dict(source.trunk.state_dict())
