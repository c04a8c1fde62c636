"""A batch, as objectives see it: images, labels and noise levels, the network, and the noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from dualsmooth.training.networks.network import predict


@dataclass(frozen=True)
class Batch:
    """uint8 images `clean` [B,C,H,W], their `labels` [B] and noise levels `sigma` [B], in epoch `epoch` (from 0) of
    `epochs`; `known` is what the objective remembers of these images at these levels [B,...].

    Copies of a batch stand copy by copy: [copies*B,...], or [copies,B,...] for logits.
    """

    network: nn.Module
    clean: torch.Tensor
    labels: torch.Tensor
    sigma: torch.Tensor
    generator: torch.Generator
    epoch: int = 0
    epochs: int = 1
    known: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def images(self) -> torch.Tensor:
        """The images in units of [0, 1]."""
        return self.clean / 255.0

    def noise(self, copies: int) -> torch.Tensor:
        """Gaussian noise [copies*B,C,H,W] at each image's level."""
        shape = (copies * len(self.clean), *self.clean.shape[1:])
        drawn = torch.randn(shape, generator=self.generator, device=self.clean.device)
        return drawn * self.sigma.repeat(copies).view(-1, 1, 1, 1)

    def noisy(self, copies: int = 1) -> torch.Tensor:
        """Noisy copies [copies*B,C,H,W] of the images."""
        levels = self.sigma.repeat(copies).view(-1, 1, 1, 1)
        return with_noise(self.clean.repeat(copies, 1, 1, 1), levels, self.generator)

    def logits(self, noisy: torch.Tensor) -> torch.Tensor:
        """The network's logits [copies,B,classes] of noisy copies [copies*B,C,H,W], as float32."""
        copies = len(noisy) // len(self.clean)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return predict(self.network, noisy, self.sigma.repeat(copies)).float().view(copies, len(self.clean), -1)

    @contextmanager
    def frozen(self) -> Iterator[Batch]:
        """The same batch with the network in evaluation mode, and without what wraps it for several processes: an
        attack moves no statistics."""
        raw = getattr(self.network, "module", self.network)
        training = raw.training
        raw.eval()
        try:
            yield replace(self, network=raw)
        finally:
            raw.train(training)


def with_noise(images: torch.Tensor, sigma: torch.Tensor | float, generator: torch.Generator) -> torch.Tensor:
    """uint8 images [N,C,H,W] in units of [0, 1] plus Gaussian noise; `sigma` is a number or a tensor [N,1,1,1]."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    noisy = torch.addcmul(images / 255.0, noise, torch.as_tensor(sigma, device=images.device))
    return noisy.contiguous(memory_format=torch.channels_last)


def column(values: torch.Tensor) -> torch.Tensor:
    """Values [N] as [N,1,1,1], one for each image."""
    return values.view(-1, 1, 1, 1)
