"""The contract of an objective. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from dualsmooth.training.objectives.batch import Batch

SECTION = "classifier.objective"
WEIGHTS = "weights"
"""What an objective remembers under this name decides how often images are drawn, and at which level."""


class Look(Protocol):
    """A look at the training images [n] with the network as it is now, in evaluation mode, at each of the K levels."""

    def hits(self, passes: int) -> torch.Tensor:
        """The share [n,K] of `passes` noisy copies of each image that are classified right."""

    def votes(self, passes: int) -> torch.Tensor:
        """The share [n,K,classes] of `passes` noisy copies of each image that each class gets."""


@dataclass(frozen=True)
class Objective:
    """An objective: its settings are its fields, `kind` is its name in the table.

    It keeps nothing between calls. What it has to remember of the training images is a dictionary of tensors
    [n,K,...] that the training loop keeps, and saves with each checkpoint: that makes it resumable.
    """

    kind: str = ""

    def check(self, section: str = SECTION) -> None:
        """Raise `InputError` for settings of the `section` that cannot be used."""

    def review(
        self, epoch: int, epochs: int, known: dict[str, torch.Tensor], look: Look
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """What is remembered from now on, before `epoch` (from 0) of `epochs` begins; by default what was `known`."""
        return known

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar that is minimised. Every random number comes from the batch's generator."""
        raise NotImplementedError


def first_epoch(after: float, epochs: int) -> int:
    """The first epoch that comes after the share `after` of all `epochs`."""
    return round(after * epochs)
