"""A network whose answers are known in closed form, and batches for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dualsmooth.training.objectives.batch import Batch

LABELS = torch.tensor([1, 0, 1])
SIGMA = torch.tensor([0.25, 0.5, 1.0])


class Half(nn.Module):
    """Two classes, divided by the plane direction @ x = cut through [1,2,2] images."""

    def __init__(self, cut: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 2.0, 0.0, 1.0]) / 5**0.5)
        self.cut = cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = x.flatten(1) @ self.weight - self.cut
        return torch.stack([torch.zeros_like(side), side], 1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def grey(value: int = 128, count: int = 3) -> torch.Tensor:
    return torch.full((count, 1, 2, 2), value, dtype=torch.uint8)


@pytest.fixture
def drawn() -> Callable[[int], torch.Tensor]:
    """The noise [copies*3,1,2,2] that a batch of `make` draws first."""
    return lambda copies: SIGMA.repeat(copies).view(-1, 1, 1, 1) * torch.randn(copies * 3, 1, 2, 2, generator=seeded())


@pytest.fixture
def make() -> Callable[..., Batch]:
    """A batch of three grey images; anything may be replaced."""

    def made(**changes: object) -> Batch:
        values: dict[str, object] = {
            "network": Half(), "clean": grey(), "labels": LABELS, "sigma": SIGMA, "generator": seeded(),
        }  # fmt: skip
        return Batch(**{**values, **changes})  # type: ignore[arg-type]

    return made
