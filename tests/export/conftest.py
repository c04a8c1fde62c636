"""Small modules to export, none of them from our own training, and runs with such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx
from dualsmooth.runtime.files import sha256_of
from dualsmooth.training import Config
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.run.checkpoint import Checkpoint, save_checkpoint
from dualsmooth.training.run.record import write_json

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


def finished_run(root: Path, seed: int = 0, classifiers: tuple[str, str] = ("classifier.pt", "classifier.pt")) -> Path:
    """A finished run with random weights for sigmas .25 and .5 on [N,1,8,8], as `train` leaves it."""
    root.mkdir()
    for name, outputs in ((classifiers[0], 3), (classifiers[1], 3), ("estimator.pt", 2)):
        spec = ModelSpec("small-cnn", 0.25, outputs, (1, 8, 8), (0.3,), (0.3,))
        network = build(spec)
        initialise(network, torch.Generator().manual_seed(seed + sum(name.encode())))
        save_checkpoint(root / name, Checkpoint(spec, network.state_dict(), {}, 1, 1))
    (root / "config.toml").write_text(Config("npz:tiny.npz", sigmas=(0.25, 0.5)).to_toml())
    record = {
        "format": "dualsmooth-run", "version": 1, "finished": True, "dataset": "npz:tiny.npz",
        "classes": ["a", "b", "c"], "input_shape": [1, 8, 8], "sigmas": [0.25, 0.5], "sigma_e": 0.5, "seed": 7,
        "estimator": "estimator.pt", "classifiers": list(classifiers),
        "sessions": [{"command": "dualsmooth train", "commit": "0" * 40}], "metrics": {"noisy_accuracy": {}},
        "checkpoints": {name: sha256_of(root / name) for name in (*classifiers, "estimator.pt")},
    }  # fmt: skip
    write_json(root / "run.json", record)
    return root


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """`make_run(root, seed=0, classifiers=(file, file))` makes a run."""
    return finished_run
