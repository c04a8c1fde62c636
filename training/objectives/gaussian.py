"""Gaussian augmentation (Cohen, Rosenfeld, Kolter, ICML 2019, section 3.3, arXiv 1902.02918)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import Objective


@dataclass(frozen=True)
class Gaussian(Objective):
    """Cross-entropy on one noisy copy of each image."""

    kind: str = "gaussian"

    def loss(self, batch: Batch) -> torch.Tensor:
        return cross_entropy(batch.logits(batch.noisy())[0], batch.labels)
