"""What a network is taught: the contract between the stages and the training loop."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from dualsmooth.training.data import batches
from dualsmooth.training.loop.feed import Feed
from dualsmooth.training.networks.network import Network


class Lesson:
    """A lesson on images that are counted from 0, and come from `feed`.

    `memory` is what it remembers from one epoch to the next, as tensors by name: the loop saves it with each
    checkpoint, and gives it back where training goes on.
    """

    def __init__(self, feed: Feed, count: int) -> None:
        self.feed, self.count = feed, count
        self.memory: dict[str, torch.Tensor] = {}

    def begin(self, network: Network) -> None:
        """Set the first weights of a new network."""
        raise NotImplementedError

    def prepare(self, network: Network) -> None:
        """Say what of the network is not trained; by default everything is."""

    def before_epoch(self, epoch: int, network: Network, generator: torch.Generator) -> None:
        """Called with the network as it is before each epoch, from 0; may change `memory`."""

    def rehearse(self, epoch: int) -> int:
        """Get into the state of `epoch` as if it had been reached, with no network to ask: made-up votes stand for its
        votes. Returns how many forward passes of each image it takes before that epoch."""
        return 0

    def order(self, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Indices [size] of the batches of one epoch; by default each image once."""
        return batches(self.count, size, generator)

    def loss(self, network: nn.Module, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The scalar loss of the images `index` [B]."""
        raise NotImplementedError
