"""Stage 2: a classifier trained under Gaussian noise, for one or several levels (Cohen et al. 2019, section 3.3)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dualsmooth.training.config import Config
from dualsmooth.training.data import TrainingData
from dualsmooth.training.loop import add_noise, fit
from dualsmooth.training.models import ModelSpec, Network, initialise
from dualsmooth.training.seeds import Stream, torch_generator


def train_classifier(path: Path, data: TrainingData, config: Config, *, device: str = "cpu") -> Network:
    """Train the classifier that serves all `config.sigmas`; each example's level is drawn anew every time it is seen.

    Checkpoints go to `path`. Returns the network in evaluation mode.
    """
    settings = config.classifier
    mean, std = data.channel_statistics()
    spec = ModelSpec(settings.model, settings.width, len(data.classes), data.input_shape, mean, std)
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    levels = torch.tensor(config.sigmas, device=device)

    def loss(network: nn.Module, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        level = torch.randint(len(levels), (len(index),), generator=generator, device=device)
        clean = data.augmentation(images[index], generator)
        noisy = add_noise(clean, levels[level].view(-1, 1, 1, 1), generator)
        return nn.functional.cross_entropy(network(noisy), labels[index])

    def start(network: Network) -> None:
        initialise(network, torch_generator(config.seed, Stream.CLASSIFIER))

    return fit(
        path, spec, loss, start=start, count=len(images), settings=settings, seed=config.seed,
        stream=Stream.CLASSIFIER, device=device,
    )  # fmt: skip
