"""Stage 2: a classifier trained under Gaussian noise, for one or several levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import ClassifierConfig, Config
from dualsmooth.training.data import TrainingData
from dualsmooth.training.loop.distributed import together
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.loop import fit, stream_key
from dualsmooth.training.networks.denoised import Denoised, denoising_loss, describe_unet, load_unet
from dualsmooth.training.networks.models import initialise
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.networks.pretrained import load_pretrained
from dualsmooth.training.networks.zoo import statistics_of
from dualsmooth.training.seeds import Stream, torch_generator
from dualsmooth.training.stages.objectives import objective_loss

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
    mean, std = data.channel_statistics()
    if settings.pretrained and ":" in settings.model and len(mean) == 3:
        mean, std = statistics_of(settings.model)
    spec = ModelSpec(
        settings.model, settings.width, len(data.classes), data.input_shape, mean, std, settings.depth,
        describe_unet(settings.denoiser) if settings.denoiser else "",
    )  # fmt: skip
    feed, labels = feed_of(data, rows, device), torch.from_numpy(data.labels[rows]).to(device)
    chances = None if weights is None else torch.from_numpy(weights).to(device)
    sigmas = torch.tensor(levels, device=device)
    objective = objective_loss(settings.objective)
    epoch = 0

    def on_epoch(number: int) -> None:
        nonlocal epoch
        epoch = number

    def loss(network: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if chances is None:
            level = torch.randint(len(sigmas), (len(batch),), generator=generator, device=device)
        else:
            level = torch.multinomial(chances[batch], 1, generator=generator)[:, 0]
        clean = feed(batch, generator)
        value = objective(network, clean, labels[batch], sigmas[level], generator, epoch)
        raw = getattr(network, "module", network)
        if isinstance(raw, Denoised):
            value = value + denoising_loss(raw, clean / 255.0, settings.mse, settings.stability)
        return value

    def begin(network: Network) -> None:
        if start is None:
            initialise(network, torch_generator(config.seed, Stream.CLASSIFIER, *stream_key(None, key)))
            if settings.pretrained:
                load_pretrained(network, settings.pretrained)
            if settings.denoiser and isinstance(network, Denoised):
                load_unet(network, settings.denoiser)
        else:
            _copy(start, network)

    def prepare(network: Network) -> None:
        if isinstance(network, Denoised) and settings.denoised_part != "all":
            fixed = network.classifier if settings.denoised_part == "denoiser" else network.denoiser
            network.fix(network.denoiser, fixed) if settings.denoiser else network.fix(fixed)

    return fit(
        path, spec, loss, start=begin, count=len(rows), settings=settings, seed=config.seed,
        stream=Stream.CLASSIFIER, key=key, device=device, on_epoch=on_epoch, feed=feed, prepare=prepare,
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
