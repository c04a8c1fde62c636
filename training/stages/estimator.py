"""Stage 1: the variance estimator, trained on certified radii (Dual RS, arXiv 2512.01782; Jeong & Shin 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dualsmooth.training.config import Config
from dualsmooth.training.data import TrainingData
from dualsmooth.training.loop.distributed import together
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.lesson import Lesson
from dualsmooth.training.loop.loop import fit
from dualsmooth.training.networks.models import initialise
from dualsmooth.training.networks.network import ModelSpec, Network, copy_trunk
from dualsmooth.training.objectives.batch import with_noise
from dualsmooth.training.objectives.consistency import consistency
from dualsmooth.training.seeds import Randomness, torch_generator

Floats = npt.NDArray[np.float64]
_CLIP = 2e-3


def utilities(radii: Floats, worth: float) -> Floats:
    """What radii [N,K] are worth: the radius itself, plus `worth` once it is well above 0 (63 % of it at 0.1)."""
    return np.asarray(radii + worth * -np.expm1(-radii / 0.1), np.float64)


def hard_labels(utility: Floats) -> Floats:
    """All weight on the best level [N,K]; equal weights where no level is worth anything."""
    best = np.eye(utility.shape[1])[utility.argmax(axis=1)]
    return np.asarray(np.where(utility.max(axis=1, keepdims=True) > 0, best, 1 / utility.shape[1]), np.float64)


def regret_weights(utility: Floats, power: float) -> Floats:
    """(best utility - worst utility) ** power of each image [N], scaled to an average of 1."""
    weights = (utility.max(axis=1) - utility.min(axis=1)) ** power
    return np.asarray(weights / max(float(weights.mean()), 1e-12), np.float64)


def interval_radii(probabilities: torch.Tensor, radii: torch.Tensor, sigma_e: float) -> torch.Tensor:
    """The radius [B] of the interval rule (docs/mathematics.md) for level probabilities [B,K] and class radii [B,K].

    min over levels s of max(e_s, A_s) without any confidence bounds; differentiable in the probabilities, which are
    kept 0.002 away from 0 and 1. A training target, not a certificate.
    """
    below = probabilities.cumsum(-1)[:, :-1].clamp(_CLIP, 1 - _CLIP)
    z = sigma_e * torch.special.ndtri(below)
    none = torch.zeros_like(z[:, :1])
    exclusion = torch.maximum(torch.cat([none, z], dim=1), torch.cat([-z, none], dim=1)).clamp_min(0)
    return torch.maximum(exclusion, radii).amin(dim=1)


def certified_share(radius: torch.Tensor, at: torch.Tensor, emphasis: torch.Tensor, softness: float) -> torch.Tensor:
    """The share of images whose `radius` [B] reaches the radii `at` [M], averaged with weights `emphasis` [M]; the
    step at each radius is a sigmoid of width `softness`. At radius 0 the step is at 0.02, just above abstention."""
    reached = torch.sigmoid((radius[:, None] - at.clamp_min(0.02)) / softness)
    return _averaged(reached, emphasis).mean()


def expected_share(
    probabilities: torch.Tensor, radii: torch.Tensor, at: torch.Tensor, emphasis: torch.Tensor
) -> torch.Tensor:
    """The share of images that the level which one vote names certifies at the radii `at` [M], averaged with weights
    `emphasis` [M], for level probabilities [B,K] and class radii [B,K]: what routes without a radius of their own would
    give. Linear in the probabilities, so that no image is too far from its best level to be pulled there."""
    reached = (radii[:, :, None] >= at) & (radii[:, :, None] > 0)
    return (probabilities * _averaged(reached, emphasis)).sum(-1).mean()


def _averaged(reached: torch.Tensor, emphasis: torch.Tensor) -> torch.Tensor:
    """What is reached [...,M] at each radius, averaged over the radii with weights `emphasis` [M]."""
    return (reached * (emphasis / emphasis.sum())).sum(-1)


def soft_labels(utility: Floats, temperature: float) -> Floats:
    """softmax(U / temperature) over the levels, for utilities [N,K] in input units."""
    scaled = utility / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def level_weights(targets: Floats, power: float) -> Floats:
    """(1 / q_i) ** power for the share q_i of each level in the targets [N,K], scaled to an average of 1."""
    share = targets.mean(axis=0)
    weights = (1 / np.maximum(share, 1e-3)) ** power
    return np.asarray(weights / (weights @ share), np.float64)


@together
def train_estimator(
    path: Path, data: TrainingData, index: npt.NDArray[np.int64], radii: Floats, trunk: Network | None, config: Config,
    *, key: tuple[int, ...] = (), device: str = "cpu",
) -> Network:  # fmt: skip
    """Train the estimator at the one level `config.sigma_e` on images `index` [N] and their radii [N,K].

    Cross-entropy against soft or hard labels, weighted by `level_weights` and `regret_weights`; `consistency` over
    noise copies of the same augmented image; and the `certified_share` of the interval rule, with the mean of the
    copies' sharpened predictions for the smoothed estimator and `radii` for the classifiers. The first features are
    those of `trunk`, where one is given and the settings ask for it. Checkpoints go to `path`. Returns the network in
    evaluation mode.
    """
    return fit(
        path, estimator_spec(config, data), _Route(data, index, radii, trunk, config, device), config.estimator,
        seed=config.seed, stream=Randomness.ESTIMATOR, key=key, device=device,
    )  # fmt: skip


def estimator_spec(config: Config, data: TrainingData) -> ModelSpec:
    """The network of the estimator, for these images."""
    settings, (mean, std) = config.estimator, data.channel_statistics()
    return ModelSpec(settings.model, settings.width, len(config.sigmas), data.input_shape, mean, std, settings.depth)


def estimator_lesson(data: TrainingData, config: Config, images: int, device: str) -> tuple[ModelSpec, Lesson]:
    """The estimator, and what it is taught on the first `images` images, with made-up radii and from fresh weights."""
    index, radii = np.arange(images, dtype=np.int64), np.tile(np.asarray(config.sigmas), (images, 1))
    return estimator_spec(config, data), _Route(data, index, radii, None, config, device)


class _Route(Lesson):
    """To name the level of a noisy image; see `train_estimator`."""

    def __init__(
        self, data: TrainingData, index: npt.NDArray[np.int64], radii: Floats, trunk: Network | None, config: Config,
        device: str,
    ) -> None:  # fmt: skip
        super().__init__(feed_of(data, index, device), len(index))
        self._settings = settings = config.estimator
        self._sigma_e, self._trunk = config.sigma_e, trunk
        self._first = torch_generator(config.seed, Randomness.ESTIMATOR)
        utility = utilities(radii, settings.worth)
        targets = soft_labels(utility, settings.temperature) if settings.targets == "soft" else hard_labels(utility)
        regret = regret_weights(utility, settings.regret)
        self._target = torch.from_numpy(targets * regret[:, None]).float().to(device)
        self._certified = torch.from_numpy(radii).float().to(device)
        self._weight = torch.from_numpy(level_weights(targets, settings.balance)).float().to(device)
        self._at, self._emphasis = (
            torch.tensor(values, device=device) for values in (settings.radii, settings.emphasis)
        )

    def begin(self, network: Network) -> None:
        initialise(network, self._first)
        if self._settings.from_classifier and self._trunk is not None:
            copy_trunk(self._trunk, network)

    def loss(self, network: nn.Module, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        settings, clean = self._settings, self.feed(index, generator)
        noisy = with_noise(clean.repeat(settings.copies, 1, 1, 1), self._sigma_e, generator)
        logits = network(noisy).view(settings.copies, len(index), -1).float()
        fit_term: torch.Tensor = -(self._weight * self._target[index] * logits.log_softmax(-1)).sum(-1).mean()
        value = fit_term + consistency(logits, settings.consistency, settings.eta)
        votes, radii = (settings.sharpness * logits).softmax(-1).mean(0), self._certified[index]
        if settings.interval:
            reached = interval_radii(votes, radii, self._sigma_e)
            share = certified_share(reached, self._at, self._emphasis, settings.softness)
            value = value - settings.interval * share
        if settings.utility:
            value = value - settings.utility * expected_share(votes, radii, self._at, self._emphasis)
        return value
