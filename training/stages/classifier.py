"""Stage 2: a classifier trained under Gaussian noise, for one or several levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import ClassifierConfig, Config
from dualsmooth.training.data import TrainingData, batches
from dualsmooth.training.loop.distributed import together
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.lesson import Lesson
from dualsmooth.training.loop.look import ImageLook, MadeUpLook
from dualsmooth.training.loop.loop import fit, stream_key
from dualsmooth.training.networks.denoised import Denoised, denoising_loss, describe_unet, load_unet
from dualsmooth.training.networks.models import initialise
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.networks.pretrained import load_pretrained
from dualsmooth.training.networks.zoo import statistics_of
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import WEIGHTS
from dualsmooth.training.seeds import Randomness, torch_generator

Rows = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


@together
def train_classifier(
    path: Path,
    data: TrainingData,
    config: Config,
    *,
    levels: tuple[float, ...],
    rows: Rows | None = None,
    weights: Weights | None = None,
    start: Network | None = None,
    key: tuple[int, ...] = (),
    device: str = "cpu",
    settings: ClassifierConfig | None = None,
) -> Network:
    """Train the classifier that serves `levels`; each example's level is drawn anew every time it is seen.

    `rows` [n] are the training images to use (default: all). `weights` [n, len(levels)] >= 0 are, up to a factor for
    each row, the probabilities of an image's levels (default: equal; instance-wise noise, the idea of Insta-RS Train);
    images whose weights are all 0 are not used. `start` is the network to fine-tune (default: fresh weights). `key`
    tells the random streams of several classifiers of one run apart. `settings` replace `config.classifier`.
    Checkpoints go to `path`. Returns the network in evaluation mode. Raises `InputError` for arguments that do not fit.
    """
    settings = settings or config.classifier
    if not levels or min(levels) <= 0:
        raise InputError(f"levels is {levels}; expected at least one positive noise level")
    rows, weights = _checked(len(data.images), rows, weights, len(levels))
    seed = settings.seed or config.seed
    first = torch_generator(seed, Randomness.CLASSIFIER, *stream_key(None, key))
    lesson = _Classify(data, rows, levels, weights, settings, first if start is None else start, device)
    return fit(
        path, _spec(data, settings), lesson, settings, seed=seed, stream=Randomness.CLASSIFIER, key=key, device=device,
    )  # fmt: skip


def classifier_lesson(
    data: TrainingData, config: Config, levels: tuple[float, ...], settings: ClassifierConfig, device: str
) -> tuple[ModelSpec, Lesson]:
    """The network that serves `levels`, and what it is taught on all images, from fresh weights."""
    rows = np.arange(len(data.images), dtype=np.int64)
    first = torch_generator(config.seed, Randomness.CLASSIFIER)
    return _spec(data, settings), _Classify(data, rows, levels, None, settings, first, device)


class _Classify(Lesson):
    """To name the class of a noisy image, for an objective; see `train_classifier`.

    `first` is the generator of the first weights, or the network that has them.
    """

    def __init__(
        self, data: TrainingData, rows: Rows, levels: tuple[float, ...], weights: Weights | None,
        settings: ClassifierConfig, first: torch.Generator | Network, device: str,
    ) -> None:  # fmt: skip
        super().__init__(feed_of(data, rows, device), len(rows))
        self._labels = torch.from_numpy(data.labels[rows]).to(device)
        self._sigmas, self._classes = torch.tensor(levels, device=device), len(data.classes)
        self._chances = None if weights is None else torch.from_numpy(weights).to(device)
        self._settings, self._objective, self._first = settings, settings.objective, first
        self._epoch = 0

    def begin(self, network: Network) -> None:
        settings = self._settings
        if not isinstance(self._first, torch.Generator):
            _copy(self._first, network)
            return
        initialise(network, self._first)
        if settings.pretrained:
            load_pretrained(network, settings.pretrained)
        if settings.denoiser and isinstance(network, Denoised):
            load_unet(network, settings.denoiser)

    def prepare(self, network: Network) -> None:
        settings = self._settings
        if isinstance(network, Denoised) and settings.denoised_part != "all":
            fixed = network.classifier if settings.denoised_part == "denoiser" else network.denoiser
            network.fix(network.denoiser, fixed) if settings.denoiser else network.fix(fixed)

    def before_epoch(self, epoch: int, network: Network, generator: torch.Generator) -> None:
        self._epoch = epoch
        look = ImageLook(network, self.feed, self._labels, self._sigmas, self._classes, generator)
        self.memory = self._objective.review(epoch, self._settings.epochs, self.memory, look)

    def rehearse(self, epoch: int) -> int:
        self._epoch = epoch
        look = MadeUpLook(self._labels, self._sigmas, self._classes)
        self.memory = self._objective.review(epoch, self._settings.epochs, self.memory, look)
        return look.passes

    def order(self, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
        pairs = self._pairs()
        if WEIGHTS not in self.memory or pairs is None:
            return batches(self.count, size, generator)
        steps = self.count // size
        drawn = torch.multinomial(pairs.sum(1), steps * size, replacement=True, generator=generator)
        return iter(torch.split(drawn, size))

    def loss(self, network: nn.Module, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        level = self._levels(index, generator)
        clean = self.feed(index, generator)
        known = {name: values[index, level] for name, values in self.memory.items()}
        batch = Batch(
            network, clean, self._labels[index], self._sigmas[level], generator, self._epoch, self._settings.epochs,
            known,
        )  # fmt: skip
        value = self._objective.loss(batch)
        raw = getattr(network, "module", network)
        if isinstance(raw, Denoised):
            value = value + denoising_loss(raw, clean / 255.0, self._settings.mse, self._settings.stability)
        return value

    def _levels(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A level [B] for each image, as likely as its chances and the objective say."""
        pairs = self._pairs()
        if pairs is None:
            return torch.randint(len(self._sigmas), (len(index),), generator=generator, device=index.device)
        return torch.multinomial(pairs[index], 1, generator=generator)[:, 0]

    def _pairs(self) -> torch.Tensor | None:
        """How often each image is drawn for each level [n,K], in proportion; None where all are alike."""
        wanted = self.memory.get(WEIGHTS)
        if wanted is None or self._chances is None:
            return self._chances if wanted is None else wanted
        return wanted * self._chances / self._chances.sum(1, keepdim=True)


def _spec(data: TrainingData, settings: ClassifierConfig) -> ModelSpec:
    """The network that `settings` describe, for these images."""
    mean, std = data.channel_statistics()
    if settings.pretrained and ":" in settings.model and len(mean) == 3:
        mean, std = statistics_of(settings.model)
    return ModelSpec(
        settings.model, settings.width, len(data.classes), data.input_shape, mean, std, settings.depth,
        describe_unet(settings.denoiser) if settings.denoiser else "",
    )  # fmt: skip


def _checked(
    count: int, rows: Rows | None, weights: Weights | None, levels: int
) -> tuple[Rows, npt.NDArray[np.float32] | None]:
    """The rows that are drawn, and their weights."""
    used = np.arange(count) if rows is None else np.asarray(rows)
    if used.ndim != 1 or used.dtype.kind not in "iu" or not len(used) or used.min() < 0 or used.max() >= count:
        raise InputError(f"rows is {used.dtype} {list(used.shape)}; expected indices of the {count} training images")
    if weights is None:
        return used.astype(np.int64), None
    table = np.asarray(weights, np.float32)
    if table.shape != (len(used), levels) or not np.isfinite(table).all() or (table < 0).any():
        raise InputError(f"weights has shape {list(table.shape)}; expected numbers from 0 of {[len(used), levels]}")
    drawn = table.sum(axis=1) > 0
    if not drawn.any():
        raise InputError("all weights are 0, so no image would be drawn; expected a positive one")
    return used[drawn].astype(np.int64), np.ascontiguousarray(table[drawn])


def _copy(source: Network, target: Network) -> None:
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise InputError("the network to start from is of another shape; expected equal model, width, depth") from error
