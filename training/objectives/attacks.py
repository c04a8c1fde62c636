"""Attacks on a smoothed classifier, for adversarial training.

The smoothed classifier is estimated with `copies` draws of noise that stay the same during the attack. Shapes: images
and perturbations [B,C,H,W] in input units, noise [copies*B,C,H,W] (copy by copy, already scaled), bounds [B].
Each is given a batch whose network is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from dualsmooth.training.objectives.batch import Batch, column

_SHRINK = 0.05

Attack = Callable[[Batch, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(batch, noise, bound, steps) to a perturbation whose L2 norm is at most `bound`."""


def pgd(batch: Batch, noise: torch.Tensor, bound: torch.Tensor, steps: int) -> torch.Tensor:
    """A perturbation that raises the smoothed loss (Salman et al. 2019, section 3): projected steps of length
    2 * bound / steps along the gradient; images stay in [0, 1]."""
    images = batch.images
    perturbation = torch.zeros_like(images)
    for _ in range(steps):
        gradient, _ = smoothed_gradient(batch, perturbation, noise)
        perturbation = perturbation + column(2 * bound / steps) * direction(gradient)
        norm = perturbation.flatten(1).norm(dim=1)
        perturbation = perturbation * column((bound / norm.clamp_min(1e-12)).clamp_max(1.0))
        perturbation = (images + perturbation).clamp(0, 1) - images
    return perturbation


def ddn(batch: Batch, noise: torch.Tensor, bound: torch.Tensor, steps: int) -> torch.Tensor:
    """Like `pgd`, but the norm is searched for (Rony et al. 2019): it shrinks by 5 % where the smoothed classifier
    errs and grows by 5 % where not, never above `bound`. The smallest success counts, else the last attempt."""
    images = batch.images
    perturbation, best = torch.zeros_like(images), torch.zeros_like(images)
    norm, smallest = bound.clone(), torch.full_like(bound, math.inf)
    for step in range(steps + 1):
        gradient, wrong = smoothed_gradient(batch, perturbation, noise)
        length = perturbation.flatten(1).norm(dim=1)
        better = wrong & (length < smallest)
        best = torch.where(column(better), perturbation, best)
        smallest = torch.where(better, length, smallest)
        if step == steps:
            break
        if step:
            norm = torch.minimum(norm * torch.where(wrong, 1 - _SHRINK, 1 + _SHRINK), bound)
        rate = 0.5 * (1 + math.cos(math.pi * step / steps)) * bound
        moved = perturbation + column(rate) * direction(gradient)
        moved = moved * column(norm / moved.flatten(1).norm(dim=1).clamp_min(1e-12))
        perturbation = (images + moved).clamp(0, 1) - images
    return torch.where(column(smallest < math.inf), best, perturbation)


ATTACKS: dict[str, Attack] = {"pgd": pgd, "ddn": ddn}


def smoothed_gradient(
    batch: Batch, perturbation: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of -log(mean over copies of the true label's probability), and where another label has more."""
    copies = len(noise) // len(batch.clean)
    with torch.enable_grad():
        variable = perturbation.detach().requires_grad_(True)
        logits = batch.logits((batch.images + variable).repeat(copies, 1, 1, 1) + noise)
        log_mean = logits.log_softmax(-1).logsumexp(0) - math.log(copies)
        loss = -log_mean.gather(1, batch.labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(loss, variable)
    return gradient.detach(), log_mean.detach().argmax(1) != batch.labels


def noise_gradient(
    batch: Batch, noise: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient [copies*B,C,H,W], with respect to the noise, of the sum of `loss`, which is given logits
    [copies,B,classes]; and these logits."""
    copies = len(noise) // len(batch.clean)
    with torch.enable_grad():
        variable = noise.detach().requires_grad_(True)
        logits = batch.logits(batch.images.repeat(copies, 1, 1, 1) + variable)
        (gradient,) = torch.autograd.grad(loss(logits).sum(), variable)
    return gradient.detach(), logits.detach()


def direction(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of each image, scaled to length 1."""
    return gradient * column(1 / gradient.flatten(1).norm(dim=1).clamp_min(1e-12))
