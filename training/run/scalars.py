"""Curves of a network's training for TensorBoard (extra `tensorboard`), beside its checkpoint."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from dualsmooth.runtime.errors import InputError

FOLDER = "tensorboard"


class Scalars:
    """Writes event files to `tensorboard/NAME` beside the checkpoint NAME.pt; without `wanted` it does nothing.

    Steps from `first` on that an interrupted run has already written are taken back. Raises `InputError`.
    """

    def __init__(self, checkpoint: Path, *, wanted: bool, first: int) -> None:
        self._writer: Any = None
        if wanted:
            try:
                module = import_module("torch.utils.tensorboard")
            except ImportError as error:
                raise InputError("tensorboard = true needs it; pip install 'dualsmooth[tensorboard]'") from error
            self._writer = module.SummaryWriter(str(checkpoint.parent / FOLDER / checkpoint.stem), purge_step=first)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, **values: float) -> None:
        """One point of each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
