"""MACER, the certified radius as a loss (Zhai et al., ICLR 2020, section 4, arXiv 2001.02378)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import nll_loss

from dualsmooth.training.checks import need, need_from, need_share
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import SECTION, Objective, first_epoch

_LEAST = 1e-10


@dataclass(frozen=True)
class Macer(Objective):
    """The cross-entropy of the soft smoothed classifier over `copies` noisy copies, plus `weight` (lambda) times
    sigma / 2 times what its margin Phi^-1(p_A) - Phi^-1(p_B) lacks to `gamma`, for images that it classifies right and
    whose margin is below. For the margin, logits are multiplied by `beta`. No attack is needed.

    The margin counts from the share `after` of the epochs on; the authors wait for a third of them at sigma = 1.
    """

    kind: str = "macer"
    weight: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0
    copies: int = 16
    after: float = 0.0

    def check(self, section: str = SECTION) -> None:
        need_from(section, self, 0, "weight")
        need_from(section, self, 2, "copies")
        need_share(section, self, "after")
        for key in ("gamma", "beta"):
            need(getattr(self, key) > 0, f"{section}.{key} is {getattr(self, key)}", "a positive number")

    def loss(self, batch: Batch) -> torch.Tensor:
        logits = batch.logits(batch.noisy(self.copies))
        value = nll_loss((logits.softmax(-1).mean(0) + _LEAST).log(), batch.labels)
        if batch.epoch < first_epoch(self.after, batch.epochs):
            return value
        lacking, rows = lacking_margin((self.beta * logits).softmax(-1).mean(0), batch.labels, self.gamma)
        return value + self.weight * (lacking * batch.sigma[rows] / 2).sum() / len(batch.labels)


def lacking_margin(
    smoothed: torch.Tensor, labels: torch.Tensor, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """gamma less the margin Phi^-1(p_A) - Phi^-1(p_B) of predictions [B,classes] that are right and have a margin
    below gamma, and which ones these are. Margins that are not finite in float32 are left out."""
    (first, second), top = smoothed.topk(2).values.T, smoothed.argmax(1)
    margin = (torch.special.ndtri(first) - torch.special.ndtri(second)).detach()
    rows = torch.nonzero((top == labels) & margin.isfinite() & (margin <= gamma))[:, 0]
    return gamma - torch.special.ndtri(first[rows]) + torch.special.ndtri(second[rows]), rows
