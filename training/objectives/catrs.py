"""Confidence-aware training, CAT-RS (Jeong, Kim, Shin, AAAI 2023, arXiv 2212.09000)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.checks import need, need_from
from dualsmooth.training.objectives.attacks import direction, noise_gradient
from dualsmooth.training.objectives.batch import Batch, column
from dualsmooth.training.objectives.objective import SECTION, Look, Objective, first_epoch

_TARGET = "target"


@dataclass(frozen=True)
class CatRS(Objective):
    """Of `copies` noisy copies of an image, the K of smallest loss count, K ~ Binomial(copies, p) and at least 1 for
    the share p that are classified right: hard images are not forced. Where K is all of them, `weight` times sigma
    times the largest KL divergence of the copies' predictions from a soft target is added, over noise that `steps`
    steps of ascent have moved by at most `epsilon` (L2, input units).

    The soft target is the smoothed prediction of a network trained with Gaussian noise. The authors train another one
    for it, at sigma = .25; here it is this network after the share `after` of the epochs, which until then are Gaussian
    augmentation, from `votes` passes at each image's own level. `weight` 2 gives the authors' .5, 1, 2 at sigma = .25,
    .5, 1.
    """

    kind: str = "catrs"
    after: float = 0.3
    votes: int = 100
    copies: int = 4
    weight: float = 2.0
    epsilon: float = 1.0
    steps: int = 4

    def check(self, section: str = SECTION) -> None:
        need(0 < self.after < 1, f"{section}.after is {self.after}", "a share above 0 and below 1")
        need_from(section, self, 1, "votes", "copies", "steps")
        need_from(section, self, 0, "weight")
        need(self.epsilon > 0, f"{section}.epsilon is {self.epsilon}", "a positive length")

    def review(
        self, epoch: int, epochs: int, known: dict[str, torch.Tensor], look: Look
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        begins = not known and epoch >= self.begins(epochs)
        return {_TARGET: look.votes(self.votes)} if begins else known

    def begins(self, epochs: int) -> int:
        """The first epoch with a soft target: at least one is Gaussian."""
        return max(1, first_epoch(self.after, epochs))

    def loss(self, batch: Batch) -> torch.Tensor:
        if _TARGET not in batch.known:
            return cross_entropy(batch.logits(batch.noisy())[0], batch.labels)
        target, noise = batch.known[_TARGET], batch.noise(self.copies)
        with batch.frozen() as frozen:
            moved = astray(frozen, noise, target, self.epsilon, self.steps)
        images = batch.images.repeat(self.copies, 1, 1, 1)
        losses, right = losses_and_hits(batch.logits(images + noise), batch.labels)
        count = torch.binomial(torch.full_like(right, self.copies), right, generator=batch.generator).clamp_min(1)
        worst = divergence(batch.logits(images + moved), target).amax(0)
        everywhere = (count == self.copies).to(worst) * self.weight * batch.sigma
        return (smallest(losses, count) + everywhere * worst).mean()


def losses_and_hits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each copy [copies,B], and the share of copies that are classified right [B]."""
    copies = len(logits)
    losses = cross_entropy(logits.flatten(0, 1), labels.repeat(copies), reduction="none").view(copies, -1)
    return losses, (logits.argmax(-1) == labels).float().mean(0)


def smallest(losses: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The sum [B] of each image's `count` [B] smallest of `losses` [copies,B], divided by the number of copies."""
    ranks = torch.arange(len(losses), device=losses.device)[:, None]
    return (losses.sort(0).values * (ranks < count)).mean(0)


def divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """KL(target || prediction) [copies,B] for logits [copies,B,classes] and targets [B,classes]."""
    return (torch.xlogy(target, target) - target * logits.log_softmax(-1)).sum(-1)


def astray(batch: Batch, noise: torch.Tensor, target: torch.Tensor, epsilon: float, steps: int) -> torch.Tensor:
    """Noise [copies*B,C,H,W] moved up the divergence from `target` [B,classes] by steps of length 2 * epsilon / steps,
    kept within `epsilon`; each noise then is given back the mean and the deviation it had."""
    mean, deviation = _moments(noise)
    moved = noise
    for _ in range(steps):
        gradient, _ = noise_gradient(batch, moved, lambda logits: divergence(logits, target))
        change = moved + 2 * epsilon / steps * direction(gradient) - noise
        length = change.flatten(1).norm(dim=1)
        moved = noise + change * column((epsilon / length.clamp_min(1e-12)).clamp_max(1.0))
        now, wide = _moments(moved)
        moved = (moved - now) / wide * deviation + mean
    return moved


def _moments(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = noise.flatten(1)
    return column(flat.mean(1)), column(flat.std(1, correction=0).clamp_min(1e-12))
