"""Networks by name: one table. To add a kind, write its file, and its row here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.denoised import denoised
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.networks.resnet import RESNET
from dualsmooth.training.networks.resnet9 import RESNET9
from dualsmooth.training.networks.small_cnn import SMALL_CNN
from dualsmooth.training.networks.zoo import TIMM, TORCHVISION, LibraryTrunk

KINDS = (SMALL_CNN, RESNET9, RESNET, TORCHVISION, TIMM)
WRAPPERS = {"denoised": denoised}
"""What may stand before another network, as in `denoised:MODEL`: it is given the spec and that network."""

MODELS = (*(kind.shown for kind in KINDS), *(f"{name}:MODEL" for name in WRAPPERS))
"""Names as they are shown to people."""


def build(spec: ModelSpec) -> Network:
    """The network of `spec`; `initialise` or a checkpoint sets its weights. Raises `InputError` for unknown names."""
    wrapper, _, inner = spec.name.partition(":")
    if wrapper in WRAPPERS:
        return WRAPPERS[wrapper](spec, build(replace(spec, name=inner, denoiser="")))
    for kind in KINDS:
        if kind.knows(spec.name):
            return kind.build(spec)
    raise InputError(f"model {spec.name!r} is unknown; expected one of {', '.join(MODELS)}")


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of all convolutions and linear layers, drawn from `generator`; borrowed networks get the
    first weights of their library, from a seed that is drawn."""
    for module in network.modules():
        if isinstance(module, LibraryTrunk):
            module.draw(int(torch.randint(2**31, (), generator=generator)))
    foreign = {m for b in network.modules() if isinstance(b, LibraryTrunk) for m in b.modules()}
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
