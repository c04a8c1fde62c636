"""Data-parallel training under `torchrun`: the first process runs the whole program, the others help it to train.

The first process (rank 0) decides, measures and writes. Whenever it trains a network, it tells the others the call; all
of them make it, each with its share of every batch, and gradients are averaged. First weights come from rank 0.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import Config
from dualsmooth.training.data import TrainingData, load_training_data

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PATIENCE = timedelta(days=30)  # what waits is ended by torchrun when another process dies
_shared: dict[str, Callable[..., Any]] = {}
_busy: list[str] = []


def rank_and_size() -> tuple[int, int]:
    """The number of this process and of all processes; (0, 1) without `torchrun`."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def together(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function that trains one which all processes run whenever the first one does.

    Arguments must be plain values and arrays, but for the training data, which every process has, and networks, which
    only the first one needs.
    """
    name = function.__qualname__
    _shared[name] = function

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        rank, size = rank_and_size()
        if size > 1 and rank == 0:
            told = [_portable(a) for a in args], {k: _portable(v) for k, v in kwargs.items() if k != "device"}
            dist.broadcast_object_list([(name, *told)], src=0)
        _busy.append(name)  # stays where the call fails
        result = function(*args, **kwargs)
        _busy.pop()
        return result

    return call


def data_parallel(train: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make `train(config, ..., threads=, device=)` use all processes that `torchrun` starts; alone it is unchanged.

    Processes other than the first return an empty dictionary. They share one file system with it.
    """

    @functools.wraps(train)
    def call(config: Config, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
            return train(config, *args, **kwargs)
        device = str(kwargs.get("device", "cpu"))
        if device.startswith("cuda"):
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
        try:
            if dist.get_rank() > 0:
                torch.set_num_threads(int(kwargs.get("threads", 1)))
                _follow(device)
                return {}
            try:
                return train(config, *args, **{**kwargs, "device": device})
            finally:
                if not _busy:  # else the others are in the middle of a call; torchrun ends them when this one ends
                    dist.broadcast_object_list([None], src=0)
        finally:
            _busy.clear()
            dist.destroy_process_group()

    return call


def share_of(batch_size: int) -> int:
    """How many of a batch's images each process takes; raises `InputError` where they cannot be shared evenly."""
    _, size = rank_and_size()
    if batch_size % size:
        raise InputError(f"a batch of {batch_size} cannot be shared by {size} processes; choose a multiple of {size}")
    return batch_size // size


def average_over_processes(value: float, device: str) -> float:
    """The mean of `value` over all processes."""
    _, size = rank_and_size()
    if size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float32, device=device)
    dist.all_reduce(total)
    return total.item() / size


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes, in each of them."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(values)
    return values


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of all processes' batches, so that a batch may be cut in pieces."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            plain: torch.Tensor = super().forward(x)
            return plain
        values = x.float()
        _, size = rank_and_size()
        moments = torch.cat([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        mean, square = (all_reduce(moments) / size).chunk(2)  # type: ignore[no-untyped-call]
        variance = (square - mean.square()).clamp_min(0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = x.numel() // x.shape[1] * size
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), rate)
        scale: torch.Tensor = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.weight is not None and self.bias is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        result: torch.Tensor = values * scale[:, None, None] + shift[:, None, None]
        return result.to(x.dtype)


def parallel(network: nn.Module, device: str) -> nn.Module:
    """`network` as what averages gradients over the processes; its first weights become those of rank 0."""
    if rank_and_size()[1] == 1:
        return network
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
    devices = [torch.device(device)] if device.startswith("cuda") else None
    return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


def wait_for_all() -> None:
    """Return when every process is here."""
    if rank_and_size()[1] > 1:
        dist.barrier()


def _portable(value: Any) -> Any:
    if isinstance(value, TrainingData):
        return _DATA
    return None if isinstance(value, nn.Module) else value


_DATA = "the training data"


def _follow(device: str) -> None:
    """Make the calls that the first process tells of, until it says that there are no more. The configuration is
    the one that it tells, which may have been fitted to the images."""
    data: TrainingData | None = None
    while True:
        told: list[Any] = [None]
        dist.broadcast_object_list(told, src=0)
        if told[0] is None:
            return
        name, args, kwargs = told[0]
        data = data or load_training_data(next(a for a in args if isinstance(a, Config)))

        def own(value: Any, mine: TrainingData = data) -> Any:
            return mine if isinstance(value, str) and value == _DATA else value

        with suppress(InputError):  # the first process has met the same, and says so
            _shared[name](*(own(a) for a in args), **{k: own(v) for k, v in kwargs.items()}, device=device)
