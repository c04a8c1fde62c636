"""Networks by name. Normalisation is inside: every network takes images in [0, 1] plus noise, unnormalised."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.resnet import residual_trunk
from dualsmooth.training.networks.zoo import LIBRARIES, Borrowed, borrow


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


def small_cnn(spec: ModelSpec) -> Network:
    """Five convolutions, 0.3 M parameters at width 1: 5x5/2 32, 3x3/2 64, 3x3 64, 3x3/2 128, 3x3 128.

    Depth multiplies the two that keep their size.
    """
    more = max(1, round(spec.depth))
    plan = [(5, 2, 32), (3, 2, 64), *[(3, 1, 64)] * more, (3, 2, 128), *[(3, 1, 128)] * more]
    layers: list[nn.Module] = []
    channels = spec.input_shape[0]
    for size, stride, features in plan:
        features = max(1, round(features * spec.width))
        layers += [
            nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        ]
        channels = features
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(Normalise(spec.mean, spec.std), trunk, nn.Linear(channels, spec.outputs))


def cifar_resnet(spec: ModelSpec) -> Network:
    """`resnetL` with L = 6n + 2 layers (20, 110, ...): n blocks in each of three stages; depth multiplies n."""
    blocks = (int(spec.name.removeprefix("resnet")) - 2) // 6
    trunk, features = residual_trunk(spec.input_shape[0], spec.width, max(1, round(blocks * spec.depth)))
    return Network(Normalise(spec.mean, spec.std), trunk, nn.Linear(features, spec.outputs))


def borrowed(spec: ModelSpec) -> Network:
    """`torchvision:NAME` or `timm:NAME`, with a new head; width and depth are part of the name."""
    if (spec.width, spec.depth) != (1.0, 1.0):
        raise InputError(f"width and depth are {spec.width:g} and {spec.depth:g}; expected 1 for model {spec.name}")
    trunk = borrow(spec.name, spec.input_shape)
    return Network(Normalise(spec.mean, spec.std), trunk, nn.Linear(trunk.features, spec.outputs))


def build(spec: ModelSpec) -> Network:
    """The network of `spec`; `initialise` or a checkpoint sets its weights. Raises `InputError` for unknown names."""
    name = spec.name
    if name.startswith(DENOISED):
        from dualsmooth.training.networks.denoised import denoised

        return denoised(spec, build(replace(spec, name=name.removeprefix(DENOISED), denoiser="")))
    if name == "small-cnn":
        return small_cnn(spec)
    if (found := re.fullmatch(r"resnet(\d{1,4})", name)) and int(found[1]) >= 8 and int(found[1]) % 6 == 2:
        return cifar_resnet(spec)
    if name.partition(":")[0] in LIBRARIES:
        return borrowed(spec)
    raise InputError(f"model {name!r} is unknown; expected one of {', '.join(MODELS)}")


MODELS = ("small-cnn", "resnet20", "resnet110 (any resnetL with L = 6n + 2)", "torchvision:NAME", "timm:NAME",
          "denoised:MODEL")  # fmt: skip
DENOISED = "denoised:"


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of all convolutions and linear layers, drawn from `generator`; borrowed networks get the
    first weights of their library, from a seed that is drawn."""
    for module in network.modules():
        if isinstance(module, Borrowed):
            module.draw(int(torch.randint(2**31, (), generator=generator)))
    foreign = {m for b in network.modules() if isinstance(b, Borrowed) for m in b.modules()}
    for module in network.modules():
        if module in foreign:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        begin = getattr(module, "first_weights", None)
        if callable(begin):
            begin()


def predict(network: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Logits of noisy images [B,C,H,W] whose noise levels are `sigma` [B]."""
    takes_sigma = getattr(getattr(network, "module", network), "takes_sigma", False)
    logits: torch.Tensor = network(noisy, sigma) if takes_sigma else network(noisy)
    return logits


def copy_trunk(source: Network, target: Network) -> None:
    """Start `target` from the features of `source`; the heads may differ."""
    target.normalise.load_state_dict(source.normalise.state_dict())
    target.trunk.load_state_dict(source.trunk.state_dict())
