"""Small modules to export, none of them from our own training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx

Make = Callable[..., nn.Module]


class Probe(nn.Module):
    """A convolution, a batch norm and a linear layer on [N,1,6,6]; every weight comes from `seed`."""

    def __init__(self, outputs: int, seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * 36, outputs)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x - 0.5))
        return logits


@pytest.fixture(scope="session")
def probe() -> Make:
    """`probe(outputs, seed=0)` makes a module for inputs [N,1,6,6]."""
    return Probe


@pytest.fixture(scope="session")
def module() -> nn.Module:
    """A probe with 3 outputs, left in training mode."""
    return Probe(3).train()


@pytest.fixture(scope="session")
def data(module: nn.Module) -> bytes:
    """`module` as an ONNX file."""
    return to_onnx(module, (1, 6, 6))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The networks here are too small to share among threads."""
    torch.set_num_threads(1)
