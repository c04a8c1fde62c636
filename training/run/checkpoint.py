"""Checkpoints: written atomically, read with `weights_only=True`, self-describing."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec, Network


@dataclass(frozen=True)
class Checkpoint:
    """A network after `epoch` of `epochs` epochs, with what it takes to go on.

    `average` is a moving average of the weights, where one is kept; the network then has these and not `weights`.
    `memory` is what the objective remembers of the training images; a finished network needs it no more.
    """

    spec: ModelSpec
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    epoch: int
    epochs: int
    average: dict[str, torch.Tensor] | None = None
    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs

    def network(self) -> Network:
        """The network with these weights (their average where there is one), in evaluation mode."""
        network = build(self.spec)
        network.load_state_dict(self.weights if self.average is None else self.average)
        return network.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` so that `path` holds either the old or the new one, whenever the process dies."""
    buffer = io.BytesIO()
    values = {
        "spec": checkpoint.spec.to_dict(),
        "weights": checkpoint.weights,
        "optimizer": checkpoint.optimizer,
        "epoch": checkpoint.epoch,
        "epochs": checkpoint.epochs,
    }
    if checkpoint.average is not None:
        values["average"] = checkpoint.average
    if checkpoint.memory and not checkpoint.finished:
        values["memory"] = checkpoint.memory
    torch.save(values, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; nothing but tensors and plain values is unpickled. Raises `InputError`."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(
            spec=ModelSpec.from_dict(values["spec"]),
            weights=values["weights"],
            optimizer=values["optimizer"],
            epoch=int(values["epoch"]),
            epochs=int(values["epochs"]),
            average=values.get("average"),
            memory=dict(values.get("memory", {})),
        )
        checkpoint.network()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no checkpoint {path}; finish the run with `dualsmooth train`") from error
    except Exception as error:  # damaged files fail in many ways inside torch
        raise InputError(
            f"checkpoint {path} is damaged ({type(error).__name__}); delete it and run `dualsmooth train` again"
        ) from error
    return checkpoint
