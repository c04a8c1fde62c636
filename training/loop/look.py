"""A look at the training images between two epochs: how a network votes on noisy copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dualsmooth.training.loop.distributed import rank_and_size, sum_over_processes
from dualsmooth.training.loop.feed import Feed
from dualsmooth.training.networks.network import Network, predict
from dualsmooth.training.objectives.batch import with_noise

_BATCH = 256


@dataclass(frozen=True)
class ImageLook:
    """`labels` [n] of the images of `feed`, looked at by `network` at each noise level `sigmas` [K].

    The network votes in evaluation mode, and is left as it was. Under `torchrun` each process looks at its share.
    """

    network: Network
    feed: Feed
    labels: torch.Tensor
    sigmas: torch.Tensor
    classes: int
    generator: torch.Generator

    def hits(self, passes: int) -> torch.Tensor:
        """The share [n,K] of `passes` noisy copies of each image that are classified right."""
        levels = len(self.sigmas)
        return self._shares(passes, (), lambda votes, labels: votes.gather(2, labels.expand(-1, levels, 1))[..., 0])

    def votes(self, passes: int) -> torch.Tensor:
        """The share [n,K,classes] of `passes` noisy copies of each image that each class gets."""
        return self._shares(passes, (self.classes,), lambda votes, labels: votes)

    @torch.no_grad()
    def _shares(
        self, passes: int, shape: tuple[int, ...], what: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """`what` is kept [B,K,*shape] of votes [B,K,classes] and labels [B,1,1], divided by `passes`."""
        device = self.labels.device
        found = torch.zeros(len(self.labels), len(self.sigmas), *shape, device=device)
        rank, size = rank_and_size()
        key = int(torch.randint(2**31, (), generator=self.generator, device=device))
        if size > 1:
            self.generator.manual_seed(key + rank)
        mine = torch.split(torch.arange(rank, len(self.labels), size, device=device), _BATCH)
        training = self.network.training
        self.network.eval()
        for index in self.feed.ahead(iter(mine), (key,)):
            found[index] = what(self._votes(index, passes), self.labels[index][:, None, None])
        self.network.train(training)
        return sum_over_processes(found) / passes

    def _votes(self, index: torch.Tensor, passes: int) -> torch.Tensor:
        """How many of `passes` noisy copies of the images `index` [B] each class gets at each level [B,K,classes]."""
        clean = self.feed(index, self.generator)
        votes = torch.zeros(len(index), len(self.sigmas), self.classes, device=clean.device)
        for level, sigma in enumerate(self.sigmas):
            for _ in range(passes):
                noisy = with_noise(clean, sigma, self.generator)
                winners = predict(self.network, noisy, sigma.expand(len(index))).argmax(1, keepdim=True)
                votes[:, level].scatter_add_(1, winners, torch.ones_like(winners, dtype=votes.dtype))
        return votes


class MadeUpLook:
    """Answers as a look does, at once and without a network, and counts the `passes` of each image that were asked for:
    every pass is right, and each class gets as many votes. `labels` [n], `sigmas` [K]."""

    def __init__(self, labels: torch.Tensor, sigmas: torch.Tensor, classes: int) -> None:
        self.labels, self.sigmas, self.classes, self.passes = labels, sigmas, classes, 0

    def hits(self, passes: int) -> torch.Tensor:
        """Ones [n,K]."""
        self.passes += passes * len(self.sigmas)
        return torch.ones(len(self.labels), len(self.sigmas), device=self.labels.device)

    def votes(self, passes: int) -> torch.Tensor:
        """Equal shares [n,K,classes]."""
        self.passes += passes * len(self.sigmas)
        shape = (len(self.labels), len(self.sigmas), self.classes)
        return torch.full(shape, 1 / self.classes, device=self.labels.device)
