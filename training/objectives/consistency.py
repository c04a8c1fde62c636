"""Consistency regularisation (Jeong & Shin, NeurIPS 2020, section 3.2, arXiv 2006.04062)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.checks import need_from
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import SECTION, Objective


@dataclass(frozen=True)
class Consistency(Objective):
    """Cross-entropy on `copies` noisy copies of each image, plus `weight` (lambda) times the mean KL divergence from
    their mean prediction, plus `eta` times the entropy of that mean."""

    kind: str = "consistency"
    weight: float = 10.0
    eta: float = 0.5
    copies: int = 2

    def check(self, section: str = SECTION) -> None:
        need_from(section, self, 0, "weight", "eta")
        need_from(section, self, 2, "copies")

    def loss(self, batch: Batch) -> torch.Tensor:
        logits = batch.logits(batch.noisy(self.copies))
        regulariser = consistency(logits, self.weight, self.eta)
        return cross_entropy(logits.flatten(0, 1), batch.labels.repeat(self.copies)) + regulariser


def consistency(logits: torch.Tensor, kl_weight: float, entropy_weight: float) -> torch.Tensor:
    """The regulariser for logits [copies,B,K]: how far the copies' predictions lie from their mean.

    kl_weight * mean KL(mean || copy) + entropy_weight * H(mean), both averaged over the batch.
    """
    log_p = logits.log_softmax(-1)
    mean = log_p.exp().mean(0)
    log_mean = mean.clamp_min(1e-12).log()
    entropy = -(mean * log_mean).sum(-1).mean()
    divergence = (mean * (log_mean - log_p)).sum(-1).mean()
    return kl_weight * divergence + entropy_weight * entropy
