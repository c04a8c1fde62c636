"""A few steps of a training, to see what it takes: the real network, objective, batches and optimiser."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from dualsmooth.training.config import ClassifierConfig, EstimatorConfig
from dualsmooth.training.loop.lesson import Lesson
from dualsmooth.training.loop.loop import Training
from dualsmooth.training.networks.network import ModelSpec, Network, predict
from dualsmooth.training.objectives.batch import with_noise
from dualsmooth.training.seeds import Randomness

LEAST, MOST, SECONDS = 4, 40, 1.0
"""Steps that are timed of each kind of epoch: at least, at most, and for so long in between."""
_PASSES, _FEW = 128, 16

Clock = Callable[[], float]


class Rehearsal:
    """A training that is tried out and thrown away. Random numbers of nobody else are touched."""

    def __init__(
        self, spec: ModelSpec, lesson: Lesson, settings: ClassifierConfig | EstimatorConfig, device: str,
        clock: Clock = time.perf_counter,
    ) -> None:  # fmt: skip
        self._lesson, self._epochs, self._clock, self._spec = lesson, settings.epochs, clock, spec
        self._training = Training(Path(), spec, lesson, settings, (0, Randomness.CHECKS, ()), device, None)
        self._device = device
        self._memories: list[dict[str, torch.Tensor]] = []
        self.reviews: list[int] = []
        """Forward passes of each image that are counted before each epoch."""
        for epoch in range(self._epochs):
            self.reviews.append(lesson.rehearse(epoch))
            self._memories.append(lesson.memory)
        self._passes: dict[int, float] = {}

    @property
    def network(self) -> Network:
        """The network that is tried out."""
        return self._training.network

    def phases(self) -> list[range]:
        """The epochs, cut where a step begins to take another number of passes: found by halving, which takes it that
        costs change seldom, and do not come back to what they were."""
        cuts: list[int] = []
        self._cut(0, self._epochs - 1, cuts)
        return [range(a, b) for a, b in zip([0, *cuts], [*cuts, self._epochs], strict=True)]

    def _cut(self, first: int, last: int, cuts: list[int]) -> None:
        if first == last or self.passes(first) == self.passes(last):
            return
        if last == first + 1:
            cuts.append(last)
            return
        middle = (first + last) // 2
        self._cut(first, middle, cuts)
        self._cut(middle, last, cuts)

    def passes(self, epoch: int) -> float:
        """Forward passes of each image that the loss of a few images takes in `epoch`."""
        if epoch not in self._passes:
            counted = 0

            def count(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                nonlocal counted
                counted += len(given[0])

            hook = self.network.register_forward_pre_hook(count)
            self._go_to(epoch)
            few = torch.arange(min(_FEW, self._lesson.count), device=self._device)
            for index in self._lesson.feed.ahead(iter([few]), (0,)):
                self._lesson.loss(self.network, index, torch.Generator(self._device).manual_seed(0))
            hook.remove()
            self._passes[epoch] = counted / len(few)
        return self._passes[epoch]

    def cost(self) -> tuple[tuple[float, int], ...]:
        """Passes of each image in the loss and in the votes before it, by epoch: equal costs take equal times."""
        steps = {epoch: self.passes(phase[0]) for phase in self.phases() for epoch in phase}
        return tuple((steps[epoch], self.reviews[epoch]) for epoch in range(self._epochs))

    def step_times(self, epoch: int) -> list[float]:
        """Seconds of some steps of `epoch`; the first, which warms up, is left out."""
        times: list[float] = []
        self._go_to(epoch)
        while not _enough(times):
            order, generator = self._training.order()
            before = self._clock()
            for step, index in enumerate(order):
                self._training.step(step, index, generator)
                times.append(self._clock() - before)
                if _enough(times):
                    break
                before = self._clock()
        return times[1:]

    def seconds_a_pass(self) -> float:
        """Seconds of a forward pass of one image, as votes between epochs are counted."""
        images = torch.zeros(_PASSES, *self._spec.input_shape, dtype=torch.uint8, device=self._device)
        sigma, generator = torch.full((_PASSES,), 0.5, device=self._device), torch.Generator(self._device)
        self.network.eval()
        times = []
        with torch.no_grad(), self._training.precision():
            for _ in range(LEAST):
                before = self._clock()
                predict(self.network, with_noise(images, 0.5, generator), sigma).argmax(1).sum().item()
                times.append(self._clock() - before)
        return sum(times[1:]) / len(times[1:]) / _PASSES

    def _go_to(self, epoch: int) -> None:
        self._lesson.rehearse(epoch)
        self._training.epoch, self._lesson.memory = epoch, self._memories[epoch]
        self.network.train()


def _enough(times: list[float]) -> bool:
    return len(times) > MOST or (len(times) > LEAST and sum(times) > SECONDS)
