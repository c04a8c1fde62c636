"""Attacks on a smoothed classifier, for adversarial training (SmoothAdv, Salman et al. 2019, section 3).

The smoothed classifier is estimated with `copies` draws of noise that stay the same during the attack. Shapes: images
and perturbations [B,C,H,W] in input units, noise [copies*B,C,H,W] (copy by copy, already scaled), sigma and bound [B].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dualsmooth.training.networks.network import predict

_SHRINK = 0.05


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode, without what wraps it for several processes: an attack moves no statistics."""
    raw = getattr(network, "module", network)
    training = raw.training
    raw.eval()
    try:
        yield raw
    finally:
        raw.train(training)


def pgd(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor,
    bound: torch.Tensor, steps: int,
) -> torch.Tensor:  # fmt: skip
    """A perturbation with L2 norm at most `bound` that raises the smoothed loss: projected steps of length
    2 * bound / steps along the gradient; images stay in [0, 1]."""
    perturbation = torch.zeros_like(images)
    for _ in range(steps):
        gradient, _ = _gradient(network, images, perturbation, labels, noise, sigma)
        perturbation = perturbation + _column(2 * bound / steps) * _direction(gradient)
        norm = perturbation.flatten(1).norm(dim=1)
        perturbation = perturbation * _column((bound / norm.clamp_min(1e-12)).clamp_max(1.0))
        perturbation = (images + perturbation).clamp(0, 1) - images
    return perturbation


def ddn(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor,
    bound: torch.Tensor, steps: int,
) -> torch.Tensor:  # fmt: skip
    """Like `pgd`, but the norm is searched for (Rony et al. 2019): it shrinks by 5 % where the smoothed classifier
    errs and grows by 5 % where not, never above `bound`. The smallest success counts, else the last attempt."""
    perturbation, best = torch.zeros_like(images), torch.zeros_like(images)
    norm, smallest = bound.clone(), torch.full_like(bound, math.inf)
    for step in range(steps + 1):
        gradient, wrong = _gradient(network, images, perturbation, labels, noise, sigma)
        length = perturbation.flatten(1).norm(dim=1)
        better = wrong & (length < smallest)
        best = torch.where(_column(better), perturbation, best)
        smallest = torch.where(better, length, smallest)
        if step == steps:
            break
        if step:
            norm = torch.minimum(norm * torch.where(wrong, 1 - _SHRINK, 1 + _SHRINK), bound)
        rate = 0.5 * (1 + math.cos(math.pi * step / steps)) * bound
        moved = perturbation + _column(rate) * _direction(gradient)
        moved = moved * _column(norm / moved.flatten(1).norm(dim=1).clamp_min(1e-12))
        perturbation = (images + moved).clamp(0, 1) - images
    return torch.where(_column(smallest < math.inf), best, perturbation)


def _gradient(
    network: nn.Module, images: torch.Tensor, perturbation: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor,
    sigma: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The gradient of -log(mean over copies of the true label's probability), and where another label has more."""
    copies = len(noise) // len(images)
    with torch.enable_grad():
        variable = perturbation.detach().requires_grad_(True)
        noisy = (images + variable).repeat(copies, 1, 1, 1) + noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        logits = predict(network, noisy, sigma.repeat(copies)).float()
        log_mean = logits.log_softmax(-1).view(copies, len(images), -1).logsumexp(0) - math.log(copies)
        loss = -log_mean.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(loss, variable)
    return gradient.detach(), log_mean.detach().argmax(1) != labels


def _direction(gradient: torch.Tensor) -> torch.Tensor:
    return gradient * _column(1 / gradient.flatten(1).norm(dim=1).clamp_min(1e-12))


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
