"""The training loop that both networks share; it resumes from the last finished epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.training.config import ClassifierConfig, EstimatorConfig
from dualsmooth.training.config.sections import BF16
from dualsmooth.training.loop.distributed import (
    average_over_processes,
    parallel,
    rank_and_size,
    share_of,
    wait_for_all,
)
from dualsmooth.training.loop.ema import Average
from dualsmooth.training.loop.lesson import Lesson
from dualsmooth.training.loop.optimizer import optimizer_of
from dualsmooth.training.loop.precision import autocast_for
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dualsmooth.training.run.history import append_history
from dualsmooth.training.run.scalars import Scalars
from dualsmooth.training.seeds import Randomness, torch_generator

_WARM_UP = 0.1
_FIRST_WEIGHTS = _PROCESS = 2**32 - 1
_REVIEW = 2**32 - 2


def fit(
    path: Path,
    spec: ModelSpec,
    lesson: Lesson,
    settings: ClassifierConfig | EstimatorConfig,
    *,
    seed: int,
    stream: Randomness,
    key: tuple[int, ...] = (),
    device: str = "cpu",
) -> Network:
    """Minimise the loss of `lesson` by the settings' optimiser, with linear warm-up and cosine decay; a checkpoint at
    `path` after every epoch.

    Every epoch draws from its own generator, told apart by `key` from those of other networks of the same `stream`, so
    that a run which was killed at any moment ends with the weights of one that was not. Under `torchrun` every process
    takes its share of each batch (see `distributed`). Loss and learning rate of each epoch go to `history.jsonl`
    beside `path`.

    Returns the network in evaluation mode, on the CPU. Raises `InputError` where `path` is of another network.
    """
    done = load_checkpoint(path) if path.exists() else None
    if done is not None and (done.spec, done.epochs) != (spec, settings.epochs):
        raise InputError(f"{path} is of another run ({done.spec.name}, {done.epochs} epochs); choose another --out")
    if done is None or not done.finished:
        Training(path, spec, lesson, settings, (seed, stream, key), device, done).run()
        done = load_checkpoint(path)
    return done.network()


class Training:
    """A network on its way: what an epoch changes, and what it needs."""

    def __init__(
        self, path: Path, spec: ModelSpec, lesson: Lesson, settings: ClassifierConfig | EstimatorConfig,
        source: tuple[int, Randomness, tuple[int, ...]], device: str, done: Checkpoint | None,
    ) -> None:  # fmt: skip
        self.path, self.spec, self.lesson, self.settings = path, spec, lesson, settings
        self.seed, self.stream, self.key = source
        self.device = device
        self.autocast = autocast_for(str(settings.autocast), device) == BF16
        self.rank, self.size = rank_and_size()
        self.epoch = done.epoch if done is not None else 0
        self.batch_size = min(settings.batch_size, lesson.count)
        self.share = share_of(self.batch_size)
        self.steps = lesson.count // self.batch_size
        self.network = self._network(done)
        self.parallel = parallel(self.network, device)
        self.optimizer = optimizer_of(settings.optimizer, self.network, settings.lr, settings.weight_decay)
        if done is not None:
            self.optimizer.load_state_dict(done.optimizer)
            lesson.memory = {name: value.to(device) for name, value in done.memory.items()}
        kept = done.average if done is not None else None
        self.mean = Average(self.network, settings.ema, kept) if settings.ema else None

    def run(self) -> None:
        """All epochs that are left."""
        each = self.steps * self.batch_size
        total, finished = self.settings.epochs * each, self.epoch * each
        progress = Progress(self.path.stem, total, "images", done=finished) if self.rank == 0 else None
        wanted = self.settings.tensorboard and self.rank == 0
        with Scalars(self.path, wanted=wanted, first=self.epoch * self.steps + 1) as scalars:
            while self.epoch < self.settings.epochs:
                loss = self._run_epoch(progress)
                self.epoch += 1
                if self.rank == 0:
                    self._save(loss, scalars)
                wait_for_all()

    def _network(self, done: Checkpoint | None) -> Network:
        """The network as it was after the last epoch, or with its first weights, on its device."""
        network = build(self.spec)
        if done is not None:
            network.load_state_dict(done.weights)
        elif self.rank == 0:
            self.lesson.begin(network)
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.lesson.prepare(network)
        return network

    def _generator(self, *more: int) -> torch.Generator:
        """The generator of this epoch, or one for another purpose in it."""
        key = stream_key(self.epoch, (*self.key, *more))
        return torch_generator(self.seed, self.stream, *key, device=self.device)

    def _run_epoch(self, progress: Progress | None) -> float:
        """One epoch; returns its mean loss."""
        with self.precision():
            self.lesson.before_epoch(self.epoch, self.network, self._generator(_REVIEW))
        order, generator = self.order()
        self.network.train()
        average, number = 0.0, f"epoch {self.epoch + 1}/{self.settings.epochs}"
        for step, index in enumerate(order):
            average += (self.step(step, index, generator) - average) / (step + 1)
            if progress is not None:
                progress.advance(self.batch_size, f"{number}, loss {average:.3f}")
        average, name = average_over_processes(average, self.device), self.stream.name.lower()
        if not math.isfinite(average):
            raise InputError(f"the {name}'s loss is {average} in epoch {self.epoch + 1}; lower {name}.lr")
        return average

    def order(self) -> tuple[Iterator[torch.Tensor], torch.Generator]:
        """The batches of this epoch, of this process, and the generator for everything else."""
        generator = self._generator()
        order = self.lesson.order(self.batch_size, generator)
        if self.size > 1:  # all processes draw the same order, and each its own noise
            share = slice(self.rank * self.share, (self.rank + 1) * self.share)
            order, generator = iter([index[share] for index in order]), self._generator(_PROCESS, self.size, self.rank)
        return self.lesson.feed.ahead(order, (self.seed, self.stream, *stream_key(self.epoch, self.key))), generator

    def step(self, step: int, index: torch.Tensor, generator: torch.Generator) -> float:
        """One step of the optimiser; returns the loss before it."""
        done = self.epoch * self.steps + step
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * _schedule(done / (self.settings.epochs * self.steps))
        with self.precision():
            value = self.lesson.loss(self.parallel, index, generator)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        if self.mean is not None:
            self.mean.update(self.network, done)
        return value.item()

    def precision(self) -> torch.autocast:
        """In which passes are computed."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.autocast)

    def _save(self, loss: float, scalars: Scalars) -> None:
        """The line of the epoch that ended, its checkpoint, and its points."""
        values = {"loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
        append_history(self.path, self.epoch, **values)
        checkpoint = Checkpoint(
            self.spec, self.network.state_dict(), self.optimizer.state_dict(), self.epoch, self.settings.epochs,
            self.mean.values if self.mean is not None else None, self.lesson.memory,
        )  # fmt: skip
        save_checkpoint(self.path, checkpoint)
        scalars.write(self.epoch * self.steps, **values)


def stream_key(epoch: int | None, key: tuple[int, ...]) -> tuple[int, ...]:
    """What tells the generator of an epoch (None: of the first weights) from those of other epochs and networks."""
    if not key:
        return () if epoch is None else (epoch,)
    return (_FIRST_WEIGHTS if epoch is None else epoch, 1 + len(key), *key)


def _schedule(position: float) -> float:
    if position < _WARM_UP:
        return max(position, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (position - _WARM_UP) / (1 - _WARM_UP)))
