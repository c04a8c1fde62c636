"""Training images, the validation split carved from them, and augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dualsmooth.runtime.bundle.reading import MANIFEST, read_bundle
from dualsmooth.runtime.datasets.class_names import match_labels, numbered
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import Config
from dualsmooth.training.seeds import Randomness, numpy_generator

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Random shift by up to `shift` pixels in each direction (zeros move in), and horizontal flip with chance 1/2.

    `crop` < 1 takes a random part of each picture that is decoded, at least this share of its area (see `feed`).
    """

    shift: int = 0
    flip: bool = False
    crop: float = 1.0

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment uint8 images [N,C,H,W], each by its own draw."""
        n, _, height, width = images.shape
        if n == 0 or not (self.shift or self.flip):
            return images
        device, s = images.device, self.shift
        offset = torch.randint(0, 2 * s + 1, (2, n, 1), generator=generator, device=device)
        flipped = torch.rand(n, 1, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        rows = torch.arange(height, device=device) + offset[0]
        columns = torch.arange(width, device=device)
        columns = torch.where(flipped, columns.flip(0), columns) + offset[1]
        padded = torch.nn.functional.pad(images, (s, s, s, s))
        # advanced indices on both sides of the channel slice move to the front: [N,H,W,C]
        picked = padded[torch.arange(n, device=device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2)


AUGMENTATIONS = {
    "fashion-mnist": Augmentation(shift=2, flip=True),
    "cifar10": Augmentation(shift=4, flip=True),
    "imagenet": Augmentation(flip=True, crop=0.08),
    "imagefolder": Augmentation(flip=True, crop=0.35),
}
"""By data set; others are not augmented, unless the configuration names one of these."""

_SAMPLE = 1000


@dataclass(frozen=True)
class TrainingData:
    """uint8 images [N,C,H,W] and labels [N] of both splits, all from the training images of the data set."""

    images: Images | ImageFiles
    labels: Labels
    validation_images: Images | ImageFiles
    validation_labels: Labels
    classes: tuple[str, ...]
    augmentation: Augmentation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel in [0, 1] units, of the training split (of 1,000 of its pictures,
        where they are decoded on access)."""
        return self._statistics

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        images = self.images
        if isinstance(images, ImageFiles):
            images = np.asarray(images[np.linspace(0, len(images) - 1, min(len(images), _SAMPLE)).astype(np.int64)])
        histograms = [np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])]
        values = np.arange(256) / 255.0
        means = [float(np.average(values, weights=h)) for h in histograms]
        deviations = [
            float(np.sqrt(np.average((values - m) ** 2, weights=h))) for m, h in zip(means, histograms, strict=True)
        ]
        return tuple(means), tuple(max(d, 1e-3) for d in deviations)


def training_images(config: Config) -> Dataset:
    """All training images of the data set."""
    return load_dataset(config.dataset, split="train", data_dir=config.data_dir)


def load_training_data(config: Config, known: Sequence[str] = (), dataset: Dataset | None = None) -> TrainingData:
    """Load the training images, unless they are given as `dataset`, and hold out `config.validation` of them, chosen by
    seed.

    Labels are matched by name to `config.classes`, else to the classes `known` from an earlier start of a run with
    experts, else to those of the experts' bundle; else the data set's own order stands. Raises `InputError`.
    """
    dataset = training_images(config) if dataset is None else dataset
    held_out = config.validation
    if len(dataset) < held_out + 2:
        raise InputError(
            f"{config.dataset} has {len(dataset)} training images, too few to hold out {held_out}; lower --validation"
        )
    given = config.classes or (config.experts and (tuple(known) or _classes_of_experts(config)))
    classes = given or dataset.classes or _counted(dataset)
    labels = match_labels(
        dataset.labels, dataset.classes, classes, data=config.dataset, owner="the network",
        fix="name its outputs with --classes, in their order, as the data set calls them",
    )  # fmt: skip
    order = numpy_generator(config.seed, Randomness.SPLIT).permutation(len(dataset))
    validation, train = order[:held_out], order[held_out:]
    return TrainingData(
        images=dataset.images[train],
        labels=labels[train],
        validation_images=dataset.images[validation],
        validation_labels=labels[validation],
        classes=classes,
        augmentation=_augmentation(config),
    )


def _augmentation(config: Config) -> Augmentation:
    """That of the data set, or of the one that `config.augment` names; none where it is false."""
    if isinstance(config.augment, bool):
        kind = config.dataset.partition(":")[0]
        return AUGMENTATIONS.get(kind, Augmentation()) if config.augment else Augmentation()
    if config.augment not in AUGMENTATIONS:
        raise InputError(f"augment is {config.augment!r}; expected true, false, or one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[config.augment]


def _classes_of_experts(config: Config) -> tuple[str, ...]:
    """The names of the classes of the bundles that the experts are files of; none where they stand alone."""
    names: dict[tuple[str, ...], Path] = {}
    for _, path in config.expert_files():
        if (path.parent / MANIFEST).is_file():
            bundle = read_bundle(path.parent)
            if path.name in bundle.files:
                names.setdefault(bundle.classes, path)
    if len(names) > 1:
        one, two = list(names.values())[:2]
        raise InputError(
            f"experts {one} and {two} are of bundles with other classes, or in another order; pass --classes"
        )
    return next(iter(names), ())


def _counted(dataset: Dataset) -> tuple[str, ...]:
    """Numbers as the names of classes that have none; each of them must occur."""
    there = np.unique(dataset.labels)
    expected = np.arange(max(2, len(there)))
    if not np.array_equal(there, expected[: len(there)]):
        raise InputError(
            f"{dataset.name} has labels {', '.join(map(str, there[:8]))}{', …' if len(there) > 8 else ''} and no names "
            "of classes; expected each of 0, 1, 2, …: count from 0, or name all classes (array classes, or --classes)"
        )
    return numbered(len(expected))


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Shuffled index batches of one epoch; an incomplete last batch is left out (its images come in other epochs)."""
    order = torch.randperm(count, generator=generator, device=generator.device)
    size = min(size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]
