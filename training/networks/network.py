"""What every network of ours is. Normalisation is inside: it takes images in [0, 1] plus noise, unnormalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network again: saved in each checkpoint, beside the weights."""

    name: str
    width: float
    outputs: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    depth: float = 1.0
    denoiser: str = ""

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
            depth=float(values.get("depth", 1.0)),
            denoiser=str(values.get("denoiser", "")),
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
    """Normalisation, a trunk that ends in features [N,F], and a linear head: x [N,C,H,W] to logits [N,outputs].

    A network that `takes_sigma` is given the noise level as its second input.
    """

    takes_sigma = False

    def __init__(self, normalise: Normalise, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.normalise, self.trunk, self.head = normalise, trunk, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.trunk(self.normalise(x)))
        return logits


@dataclass(frozen=True)
class Kind:
    """A kind of network: `shown` is how its names look, `example` its smallest; `knows` says whether a name is one of
    its, and `trunk` makes what ends in features [N,F] for a spec, and their number F."""

    shown: str
    example: str
    knows: Callable[[str], bool]
    trunk: Callable[[ModelSpec], tuple[nn.Module, int]]

    def build(self, spec: ModelSpec) -> Network:
        """The network of `spec`, with whatever weights."""
        trunk, features = self.trunk(spec)
        return Network(Normalise(spec.mean, spec.std), trunk, nn.Linear(features, spec.outputs))


def predict(network: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Logits of noisy images [B,C,H,W] whose noise levels are `sigma` [B]."""
    takes_sigma = getattr(getattr(network, "module", network), "takes_sigma", False)
    logits: torch.Tensor = network(noisy, sigma) if takes_sigma else network(noisy)
    return logits


def copy_trunk(source: Network, target: Network) -> None:
    """Start `target` from the features of `source`; the heads may differ."""
    target.normalise.load_state_dict(source.normalise.state_dict())
    target.trunk.load_state_dict(source.trunk.state_dict())
