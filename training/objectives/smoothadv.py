"""SmoothAdv: adversarial training, smoothed (Salman et al., NeurIPS 2019, section 3, arXiv 1906.04584)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.checks import need, need_from
from dualsmooth.training.objectives.attacks import ATTACKS
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import SECTION, Objective


@dataclass(frozen=True)
class SmoothAdv(Objective):
    """Cross-entropy on noisy copies of an adversarial image, found by `steps` steps on the loss of the *smoothed*
    classifier with the same `copies` draws of noise.

    `epsilon` bounds the L2 norm of the attack, in input units, or in units of each example's own noise level where
    `relative`; it grows from epsilon / warm_up in the first epoch to epsilon in epoch `warm_up`. `attack` is "pgd"
    (steps of fixed length inside the ball) or "ddn" (Rony et al. 2019: the norm is searched for, at most epsilon).
    """

    kind: str = "smoothadv"
    attack: str = "pgd"
    epsilon: float = 0.5
    relative: bool = False
    steps: int = 4
    copies: int = 2
    warm_up: int = 3

    def check(self, section: str = SECTION) -> None:
        need(self.attack in ATTACKS, f"{section}.attack is {self.attack!r}", " or ".join(ATTACKS))
        need(self.epsilon > 0, f"{section}.epsilon is {self.epsilon}", "a positive length")
        need_from(section, self, 1, "steps", "copies", "warm_up")

    def loss(self, batch: Batch) -> torch.Tensor:
        noise = batch.noise(self.copies)
        with batch.frozen() as frozen:
            moved = batch.images + ATTACKS[self.attack](frozen, noise, self.bound(batch), self.steps)
        logits = batch.logits(moved.repeat(self.copies, 1, 1, 1) + noise)
        return cross_entropy(logits.flatten(0, 1), batch.labels.repeat(self.copies))

    def bound(self, batch: Batch) -> torch.Tensor:
        """The largest L2 norm [B] of an attack in this epoch."""
        bound = torch.full_like(batch.sigma, self.epsilon) * min(1.0, (batch.epoch + 1) / self.warm_up)
        return bound * batch.sigma if self.relative else bound
