"""Projected gradient ascent on smoothed networks, through differentiable twins of the deployed files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch_twin import Twin, checked_twin

import dualsmooth as ds
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, PREDICTION, Purpose, Stream

FLOOR = 1e-4

Image = npt.NDArray[np.float32]
Gain = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Networks:
    """A smoother, and the differentiable twins of its base models."""

    smoother: ds.Smoother
    estimator: Twin
    classifiers: tuple[Twin, ...]

    @classmethod
    def of(cls, smoother: ds.Smoother) -> Networks:
        bundle = smoother.bundle
        twins = {m: checked_twin(smoother, m, len(bundle.classes)) for m in dict.fromkeys(bundle.classifiers)}
        estimator = checked_twin(smoother, bundle.router[0], len(bundle.sigmas))
        return cls(smoother, estimator, tuple(twins[m] for m in bundle.classifiers))

    def shares(self, level: int | None, noisy: torch.Tensor) -> torch.Tensor:
        """Mean softmax [width] of a classifier (or of the estimator) over noisy copies: what votes are a step of."""
        twin = self.estimator if level is None else self.classifiers[level]
        return torch.softmax(twin(noisy), 1).mean(0)

    def votes(self, level: int | None, image: Image, count: int, seed: Seed) -> npt.NDArray[np.int64]:
        """Votes [width] of the deployed network on `count` noisy copies of `image`."""
        found = self._votes(level, image, count, seed, PREDICTION)
        return found[: len(found) // 2] + found[len(found) // 2 :]

    def sure_votes(self, level: int, image: Image, count: int, seed: Seed) -> npt.NDArray[np.int64]:
        """Sure votes of a classifier, and last how many were not sure [classes + 1]."""
        found = self._votes(level, image, count, seed, ESTIMATION)
        sure = found[: len(found) // 2]
        return np.append(sure, count - sure.sum())

    def _votes(
        self, level: int | None, image: Image, count: int, seed: Seed, purpose: Purpose
    ) -> npt.NDArray[np.int64]:
        """Votes [2 * width] as the engine gives them: sure ones, then the others. Votes of estimation say which."""
        b = self.smoother.bundle
        stream = Stream(ESTIMATOR if level is None else CLASSIFIER, level or 0, purpose)
        model, sigma = b.asked(stream)
        width = len(b.sigmas if level is None else b.classes)
        generator = seed.generator(stream)
        counts = np.zeros(2 * width, np.int64)
        for start in range(0, count, 250):
            batch = np.empty((min(250, count - start), *image.shape), np.float32)
            add_noise(generator, image, sigma, batch)
            counts += np.bincount(self.smoother.engine.votes(model, batch, sigma, width), minlength=2 * width)
        return counts


@dataclass(frozen=True)
class Attack:
    """Steps of normalised gradient ascent, and noisy copies of which each gradient is the average."""

    steps: int = 12
    samples: int = 20

    def run(
        self, networks: Networks, image: Image, radius: float, gains: list[tuple[int | None, Gain]], seed: int
    ) -> Image:
        """An input within `radius` (L2) of `image` that makes the sum of the gains large. Each gain is a function of
        the soft vote shares of one network: level, or None for the estimator."""
        bundle = networks.smoother.bundle
        generator = torch.Generator().manual_seed(seed)
        clean = torch.from_numpy(image)
        change = torch.randn(image.shape, generator=generator)
        change *= 0.05 * radius / change.norm()
        velocity = torch.zeros_like(clean)
        for _ in range(self.steps):
            change.requires_grad_(True)
            total = torch.zeros(())
            for level, gain in gains:
                sigma = bundle.router[1] if level is None else bundle.sigmas[level]
                noise = sigma * torch.randn((self.samples, *image.shape), generator=generator)
                total = total + gain(networks.shares(level, clean + change + noise))
            (gradient,) = torch.autograd.grad(total, change)
            velocity = 0.5 * velocity + gradient / gradient.norm().clamp_min(1e-12)
            with torch.no_grad():
                change = change + 2.5 * radius / self.steps * velocity / velocity.norm().clamp_min(1e-12)
                change = change * (radius / change.norm().clamp_min(radius))
        return inside(image, np.asarray(change.detach().numpy(), np.float64), radius)


def inside(image: Image, change: npt.NDArray[np.float64], radius: float) -> Image:
    """image + change, after rounding to float32 still within `radius`."""
    for shrink in (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4):
        moved = (image + shrink * change).astype(np.float32)
        if float(np.linalg.norm(moved.astype(np.float64) - image)) <= radius:
            return moved
    raise AssertionError("rounding moved the attack out of the ball")


def towards(level: int, count: int) -> Gain:
    """Reward for the median route `level` of `count`: F_(level-1) below and F_level above 1/2."""

    def gain(shares: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        if level > 0:
            total = total + shares[level:].sum().clamp_min(FLOOR).log()
        if level < count - 1:
            total = total + shares[: level + 1].sum().clamp_min(FLOOR).log()
        return total

    return gain


def away_from(label: int) -> Gain:
    return lambda shares: (1 - shares[label]).clamp_min(FLOOR).log()
