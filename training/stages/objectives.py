"""What a classifier minimises, for images whose noise levels may differ: one loss for each objective of the config."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dualsmooth.training.config import Consistency, Gaussian, SmoothAdv
from dualsmooth.training.loop.loop import add_noise
from dualsmooth.training.networks.network import predict
from dualsmooth.training.stages import smoothadv
from dualsmooth.training.stages.estimator import consistency

ObjectiveLoss = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, torch.Generator, int], torch.Tensor]
"""(network, uint8 images [B,C,H,W], labels [B], noise levels [B], generator, epoch from 0) to a scalar loss."""


def objective_loss(objective: Gaussian | Consistency | SmoothAdv) -> ObjectiveLoss:
    """The loss of an objective; every random number comes from the generator that it is passed."""
    if isinstance(objective, Consistency):
        return lambda *batch: _consistency(objective, *batch)
    if isinstance(objective, SmoothAdv):
        return lambda *batch: _smoothadv(objective, *batch)
    return _gaussian


def _gaussian(
    network: nn.Module, clean: torch.Tensor, labels: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator,
    epoch: int,
) -> torch.Tensor:  # fmt: skip
    noisy = add_noise(clean, sigma.view(-1, 1, 1, 1), generator)
    return cross_entropy(predict(network, noisy, sigma), labels)


def _consistency(
    objective: Consistency, network: nn.Module, clean: torch.Tensor, labels: torch.Tensor, sigma: torch.Tensor,
    generator: torch.Generator, epoch: int,
) -> torch.Tensor:  # fmt: skip
    copies = objective.copies
    levels = sigma.repeat(copies)
    noisy = add_noise(clean.repeat(copies, 1, 1, 1), levels.view(-1, 1, 1, 1), generator)
    logits = predict(network, noisy, levels).float()
    regulariser = consistency(logits.view(copies, len(clean), -1), objective.weight, objective.eta)
    return cross_entropy(logits, labels.repeat(copies)) + regulariser


def _smoothadv(
    objective: SmoothAdv, network: nn.Module, clean: torch.Tensor, labels: torch.Tensor, sigma: torch.Tensor,
    generator: torch.Generator, epoch: int,
) -> torch.Tensor:  # fmt: skip
    copies = objective.copies
    levels = sigma.repeat(copies)
    images = clean / 255.0
    shape = (copies * len(clean), *clean.shape[1:])
    noise = torch.randn(shape, generator=generator, device=clean.device) * levels.view(-1, 1, 1, 1)
    bound = torch.full_like(sigma, objective.epsilon) * min(1.0, (epoch + 1) / objective.warm_up)
    bound = bound * sigma if objective.relative else bound
    attack = smoothadv.ddn if objective.attack == "ddn" else smoothadv.pgd
    with smoothadv.frozen(network) as raw:
        moved = images + attack(raw, images, labels, noise, sigma, bound, objective.steps)
    noisy = (moved.repeat(copies, 1, 1, 1) + noise).contiguous(memory_format=torch.channels_last)
    return cross_entropy(predict(network, noisy, levels), labels.repeat(copies))
