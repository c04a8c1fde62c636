"""Training batches: small sets wait in memory (or on the device), pictures are decoded ahead by worker threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.training.data import Augmentation, TrainingData

_AHEAD = 2


class Feed(Protocol):
    """Gives augmented images of some rows of the training split, which are counted from 0."""

    def __call__(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augmented uint8 images [len(index),C,H,W], on the device."""

    def ahead(self, order: Iterator[torch.Tensor], key: tuple[int, ...]) -> Iterator[torch.Tensor]:
        """The same batches of indices, those that come next being prepared; `key` decides their random crops."""


def feed_of(data: TrainingData, rows: npt.NDArray[np.int64], device: str) -> Feed:
    """The feed of the training images `rows` [n]."""
    if isinstance(data.images, ImageFiles):
        return _Files(data.images[rows], data.augmentation, device)
    return _Memory(torch.from_numpy(data.images), torch.from_numpy(rows), data.augmentation, device)


class _Memory:
    def __init__(self, images: torch.Tensor, rows: torch.Tensor, augmentation: Augmentation, device: str) -> None:
        self._images, self._rows, self._augmentation = images.to(device), rows.to(device), augmentation

    def __call__(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self._augmentation(self._images[self._rows[index]], generator)

    def ahead(self, order: Iterator[torch.Tensor], key: tuple[int, ...]) -> Iterator[torch.Tensor]:
        return order


class _Files:
    """Decodes up to `_AHEAD` batches in advance; the crop of a picture depends on `key` and its row alone."""

    def __init__(self, files: ImageFiles, augmentation: Augmentation, device: str) -> None:
        self._files, self._augmentation, self._device = files, augmentation, device
        self._ready: tuple[torch.Tensor, list[Future[npt.NDArray[np.uint8]]]] | None = None

    def __call__(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self._ready is None or self._ready[0] is not index:
            raise RuntimeError("a feed of files gives the batch that `ahead` yielded last")
        images = np.stack([image.result() for image in self._ready[1]])
        return self._augmentation(torch.from_numpy(images).to(self._device), generator)

    def ahead(self, order: Iterator[torch.Tensor], key: tuple[int, ...]) -> Iterator[torch.Tensor]:
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        waiting: deque[tuple[torch.Tensor, list[Future[npt.NDArray[np.uint8]]]]] = deque()
        try:
            for index in order:
                waiting.append((index, [pool.submit(self._decode, row, key) for row in index.tolist()]))
                if len(waiting) > _AHEAD:
                    self._ready = waiting.popleft()
                    yield self._ready[0]
            while waiting:
                self._ready = waiting.popleft()
                yield self._ready[0]
        finally:
            self._ready = None
            pool.shutdown(cancel_futures=True)

    def _decode(self, row: int, key: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        path, share = os.fsdecode(self._files.paths[row]), self._augmentation.crop
        if share >= 1:
            return self._files.decode(path)
        generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence([len(key), *key, row])))
        return self._files.decode(path, generator, share)
