"""SmoothMix, mixing images with adversarial ones (Jeong et al., NeurIPS 2021, section 3, arXiv 2111.09277)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.checks import need, need_from
from dualsmooth.training.objectives.attacks import direction, smoothed_gradient
from dualsmooth.training.objectives.batch import Batch, column
from dualsmooth.training.objectives.catrs import divergence
from dualsmooth.training.objectives.objective import SECTION, Objective


@dataclass(frozen=True)
class SmoothMix(Objective):
    """Cross-entropy on `copies` noisy copies, plus `eta` times a mixup loss: images that the smoothed classifier gets
    right are mixed with an adversarial image, x + lambda (x' - x) with lambda ~ U(0, 1/2), and their copies' target is
    the smoothed prediction mixed with the uniform one by the same lambda.

    The adversarial image is found by `steps` steps on the loss of the smoothed classifier, each of length `step` in
    units of the image's own noise level, with no bound but [0, 1]; 2 gives the authors' .5, 1, 2 at sigma = .25, .5, 1.
    The mixup loss grows to its weight over the first `warm_up` epochs. The authors' one-step variant is left out.
    """

    kind: str = "smoothmix"
    eta: float = 5.0
    steps: int = 4
    step: float = 2.0
    copies: int = 2
    warm_up: int = 10

    def check(self, section: str = SECTION) -> None:
        need_from(section, self, 0, "eta")
        need_from(section, self, 1, "steps", "copies", "warm_up")
        need(self.step > 0, f"{section}.step is {self.step}", "a positive length, in units of the noise level")

    def loss(self, batch: Batch) -> torch.Tensor:
        noise = batch.noise(self.copies)
        with batch.frozen() as frozen:
            far = adversarial(frozen, noise, self.step * batch.sigma, self.steps)
        logits = batch.logits(batch.images.repeat(self.copies, 1, 1, 1) + noise)
        smoothed = logits.softmax(-1).mean(0)
        share = torch.rand(len(far), generator=batch.generator, device=far.device) / 2
        mixed, target = mix(batch.images, far, smoothed, share)
        again = batch.logits(mixed.repeat(self.copies, 1, 1, 1) + noise)
        right = (smoothed.argmax(1) == batch.labels).to(smoothed)
        weight = self.eta * min(1.0, (batch.epoch + 1) / self.warm_up)
        plain = cross_entropy(logits.flatten(0, 1), batch.labels.repeat(self.copies))
        return plain + weight * (right * divergence(again, target)).mean()


def adversarial(batch: Batch, noise: torch.Tensor, length: torch.Tensor, steps: int) -> torch.Tensor:
    """Images [B,C,H,W] after `steps` steps of `length` [B] up the loss of the smoothed classifier, within [0, 1]."""
    moved = batch.images
    for _ in range(steps):
        gradient, _ = smoothed_gradient(batch, moved - batch.images, noise)
        moved = (moved + column(length) * direction(gradient)).clamp(0, 1)
    return moved


def mix(
    images: torch.Tensor, others: torch.Tensor, smoothed: torch.Tensor, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Images [B,C,H,W] mixed with `others`, and predictions [B,classes] with the uniform one, by `share` [B] each."""
    mixed = images + column(share) * (others - images)
    return mixed, smoothed + share[:, None] * (1 / smoothed.shape[1] - smoothed)
