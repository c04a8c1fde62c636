"""The training loop that both networks share; it resumes from the last finished epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.training.config import ClassifierConfig, EstimatorConfig
from dualsmooth.training.data import batches
from dualsmooth.training.loop.distributed import average_over_processes, parallel, rank_and_size, share_of, wait_for_all
from dualsmooth.training.loop.ema import Average
from dualsmooth.training.loop.feed import Feed
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dualsmooth.training.run.history import append_history
from dualsmooth.training.run.scalars import Scalars
from dualsmooth.training.seeds import Stream, torch_generator

Loss = Callable[[nn.Module, torch.Tensor, torch.Generator], torch.Tensor]
"""(network, indices [B] of training images, generator) to a scalar loss."""

_WARM_UP = 0.1
_FIRST_WEIGHTS = _PROCESS = 2**32 - 1


def fit(
    path: Path,
    spec: ModelSpec,
    loss: Loss,
    *,
    start: Callable[[Network], None],
    count: int,
    settings: ClassifierConfig | EstimatorConfig,
    seed: int,
    stream: Stream,
    key: tuple[int, ...] = (),
    device: str = "cpu",
    on_epoch: Callable[[int], None] | None = None,
    feed: Feed | None = None,
    prepare: Callable[[Network], None] | None = None,
) -> Network:
    """Minimise `loss` with AdamW, linear warm-up and cosine decay; a checkpoint at `path` after every epoch.

    `start` sets the first weights of a new network, `prepare` says what of it is not trained; `on_epoch` is called with
    the number of each epoch, from 0, before it begins; `feed` is told of the coming batches. Every epoch draws from its
    own generator, told apart by `key` from those of other networks of the same `stream`, so that a run which was killed
    at any moment ends with the weights of one that was not. Under `torchrun` every process takes its share of each
    batch (see `distributed`). Loss and learning rate of each epoch go to `history.jsonl` beside `path`.

    Returns the network in evaluation mode, on the CPU.
    """
    done = load_checkpoint(path) if path.exists() else None
    if done is not None and (done.spec, done.epochs) != (spec, settings.epochs):
        raise InputError(f"{path} is of another run ({done.spec.name}, {done.epochs} epochs); choose another --out")
    if done is not None and done.finished:
        return done.network()

    rank, size = rank_and_size()
    network = build(spec)
    if done is not None:
        network.load_state_dict(done.weights)
    elif rank == 0:
        start(network)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if prepare is not None:
        prepare(network)
    trained = parallel(network, device)
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
    if done is not None:
        optimizer.load_state_dict(done.optimizer)
    mean = Average(network, settings.ema, done.average if done is not None else None) if settings.ema else None

    epoch = done.epoch if done is not None else 0
    batch_size = min(settings.batch_size, count)
    share = share_of(batch_size)
    steps = count // batch_size
    name = stream.name.lower()
    total, finished = settings.epochs * steps * batch_size, epoch * steps * batch_size
    progress = Progress(path.stem, total, "images", done=finished) if rank == 0 else None
    with Scalars(path, wanted=settings.tensorboard and rank == 0, first=epoch * steps + 1) as scalars:
        while epoch < settings.epochs:
            generator = torch_generator(seed, stream, *stream_key(epoch, key), device=device)
            order = batches(count, batch_size, generator)
            if size > 1:  # all processes draw the same order, and each its own noise
                order = (index[rank * share : (rank + 1) * share] for index in order)
                own = stream_key(epoch, (*key, _PROCESS, size, rank))
                order, generator = iter(list(order)), torch_generator(seed, stream, *own, device=device)
            if feed is not None:
                order = feed.ahead(order, (seed, stream, *stream_key(epoch, key)))
            network.train()
            if on_epoch is not None:
                on_epoch(epoch)
            average = 0.0
            for step, index in enumerate(order):
                position = (epoch * steps + step) / (settings.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * _schedule(position)
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=settings.autocast):
                    value = loss(trained, index, generator)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                if settings.clip_norm:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
                optimizer.step()
                if mean is not None:
                    mean.update(network, epoch * steps + step)
                average += (value.item() - average) / (step + 1)
                if progress is not None:
                    progress.advance(batch_size, f"epoch {epoch + 1}/{settings.epochs}, loss {average:.3f}")
            average = average_over_processes(average, device)
            if not math.isfinite(average):
                raise InputError(f"the {name}'s loss is {average} in epoch {epoch + 1}; lower {name}.lr")
            epoch += 1
            if rank == 0:
                append_history(path, epoch, loss=average, lr=optimizer.param_groups[0]["lr"])
                weights, kept = network.state_dict(), mean.values if mean is not None else None
                save_checkpoint(path, Checkpoint(spec, weights, optimizer.state_dict(), epoch, settings.epochs, kept))
                scalars.write(epoch * steps, loss=average, lr=optimizer.param_groups[0]["lr"])
            wait_for_all()
    return load_checkpoint(path).network()


def add_noise(images: torch.Tensor, sigma: torch.Tensor | float, generator: torch.Generator) -> torch.Tensor:
    """uint8 images [N,C,H,W] in units of [0, 1] plus Gaussian noise; `sigma` is a number or a tensor [N,1,1,1]."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    noisy = torch.addcmul(images / 255.0, noise, torch.as_tensor(sigma, device=images.device))
    return noisy.contiguous(memory_format=torch.channels_last)


def stream_key(epoch: int | None, key: tuple[int, ...]) -> tuple[int, ...]:
    """What tells the generator of an epoch (None: of the first weights) from those of other epochs and networks."""
    if not key:
        return () if epoch is None else (epoch,)
    return (_FIRST_WEIGHTS if epoch is None else epoch, 1 + len(key), *key)


def _schedule(position: float) -> float:
    if position < _WARM_UP:
        return max(position, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (position - _WARM_UP) / (1 - _WARM_UP)))
