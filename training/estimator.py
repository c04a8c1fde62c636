"""Stage 1: the variance estimator, trained on certified radii (Dual RS, arXiv 2512.01782; Jeong & Shin 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dualsmooth.training.config import Config
from dualsmooth.training.data import TrainingData
from dualsmooth.training.distributed import together
from dualsmooth.training.feed import feed_of
from dualsmooth.training.loop import add_noise, fit
from dualsmooth.training.models import ModelSpec, Network, copy_trunk, initialise
from dualsmooth.training.seeds import Stream, torch_generator

Floats = npt.NDArray[np.float64]


def soft_labels(radii: Floats, temperature: float) -> Floats:
    """softmax(R / temperature) over the levels, for radii [N,K] in input units."""
    scaled = radii / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def level_weights(targets: Floats, power: float) -> Floats:
    """(1 / q_i) ** power for the share q_i of each level in the targets [N,K], scaled to an average of 1."""
    share = targets.mean(axis=0)
    weights = (1 / np.maximum(share, 1e-3)) ** power
    return np.asarray(weights / (weights @ share), np.float64)


def consistency(logits: torch.Tensor, kl_weight: float, entropy_weight: float) -> torch.Tensor:
    """Jeong & Shin's regulariser for logits [copies,B,K]: how far the copies' predictions lie from their mean.

    kl_weight * mean KL(mean || copy) + entropy_weight * H(mean), both averaged over the batch.
    """
    log_p = logits.log_softmax(-1)
    mean = log_p.exp().mean(0)
    log_mean = mean.clamp_min(1e-12).log()
    entropy = -(mean * log_mean).sum(-1).mean()
    divergence = (mean * (log_mean - log_p)).sum(-1).mean()
    return kl_weight * divergence + entropy_weight * entropy


@together
def train_estimator(
    path: Path, data: TrainingData, index: npt.NDArray[np.int64], radii: Floats, classifier: Network, config: Config,
    *, device: str = "cpu",
) -> Network:  # fmt: skip
    """Train the estimator at the one level `config.sigma_e` on images `index` [N] and their radii [N,K].

    Cross-entropy against `soft_labels`, weighted by `level_weights`, plus `consistency` over noise copies of the same
    augmented image. Checkpoints go to `path`. Returns the network in evaluation mode.
    """
    settings = config.estimator
    mean, std = data.channel_statistics()
    spec = ModelSpec(settings.model, settings.width, len(config.sigmas), data.input_shape, mean, std, settings.depth)
    targets = soft_labels(radii, settings.temperature)
    feed = feed_of(data, index, device)
    target = torch.from_numpy(targets).float().to(device)
    weight = torch.from_numpy(level_weights(targets, settings.balance)).float().to(device)

    def loss(network: nn.Module, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        clean = feed(rows, generator)
        noisy = add_noise(clean.repeat(settings.copies, 1, 1, 1), config.sigma_e, generator)
        logits = network(noisy).view(settings.copies, len(rows), -1).float()
        fit_term: torch.Tensor = -(weight * target[rows] * logits.log_softmax(-1)).sum(-1).mean()
        return fit_term + consistency(logits, settings.consistency, settings.eta)

    def start(network: Network) -> None:
        initialise(network, torch_generator(config.seed, Stream.ESTIMATOR))
        if settings.from_classifier:
            copy_trunk(classifier, network)

    return fit(
        path, spec, loss, start=start, count=len(index), settings=settings, seed=config.seed,
        stream=Stream.ESTIMATOR, device=device, feed=feed,
    )  # fmt: skip
