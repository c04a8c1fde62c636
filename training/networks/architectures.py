"""Networks for checkpoints of other people: as their libraries name and make them, without a normalisation."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.networks.resnet import ResidualNetwork, blocks_of
from dualsmooth.training.networks.zoo import LIBRARIES, UNFIT, known_to, take_channels

ARCHITECTURES = "resnet20, resnet110 (CIFAR's resnetL with L = 6n + 2), torchvision:NAME, timm:NAME"


def architecture(name: str, outputs: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """The network `name` for images of `input_shape`, with `outputs` logits, to be filled by `load_checkpoint`.

    `resnetL` (or `cifar_resnetL`) is that of Cohen et al. for CIFAR. Raises `InputError` for unknown names and shapes.
    """
    if blocks := blocks_of(re.sub("^cifar_?", "", name)):
        return ResidualNetwork(input_shape[0], blocks, outputs)
    library, _, model = name.partition(":")
    if library not in LIBRARIES:
        raise InputError(f"architecture {name!r} is unknown; expected {ARCHITECTURES}")
    module = known_to(library, model)
    make = _torchvision if library == "torchvision" else _timm
    problem: Exception | None = None
    for options in ({}, {"size": input_shape[1:]}):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                network = make(module, model, outputs, input_shape[0], **options)
                network.eval()(torch.zeros(1, *input_shape))
                return network
        except UNFIT as error:
            problem = problem or error
    assert problem is not None
    raise InputError(
        f"{name} cannot serve images {list(input_shape)} ({one_line(problem)}); choose another one or size"
    ) from problem


def _torchvision(module: Any, model: str, outputs: int, channels: int, **size: tuple[int, int]) -> nn.Module:
    options: dict[str, Any] = {"image_size": size["size"][0]} if size else {}
    if model in ("googlenet", "inception_v3"):
        options = {"init_weights": True}
    network: nn.Module = module.get_model(model, weights=None, num_classes=outputs, **options)
    take_channels(network, channels)
    return network


def _timm(module: Any, model: str, outputs: int, channels: int, **size: tuple[int, int]) -> nn.Module:
    options = {"img_size": size["size"]} if size else {}
    network: nn.Module = module.create_model(model, pretrained=False, num_classes=outputs, in_chans=channels, **options)
    return network
