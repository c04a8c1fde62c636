"""The definition (Zhai et al. 2020, section 4), worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import pytest
import torch

from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.macer import Macer, lacking_margin

Make = Callable[..., Batch]
Z = NormalDist().inv_cdf


def test_what_the_margin_lacks() -> None:
    smoothed = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.05, 0.05, 0.9], [0.0, 0.0, 1.0]])
    lacking, rows = lacking_margin(smoothed, torch.tensor([0, 0, 2, 2]), 2.0)
    assert rows.tolist() == [0]  # then: wrong; a margin of 2.93, above 2; a margin that is infinite
    assert lacking.tolist() == pytest.approx([2.0 - Z(0.7) + Z(0.2)], rel=1e-5)


@pytest.mark.parametrize("counts", [True, False])
def test_the_loss_by_hand(counts: bool, make: Make, drawn: Callable[[int], torch.Tensor]) -> None:
    objective = Macer(weight=3.0, gamma=4.0, beta=1.5, copies=4, after=0.0 if counts else 0.5)
    found = objective.loss(make(epoch=0, epochs=10)).item()
    noise, total = drawn(4), 0.0
    for image, (label, sigma) in enumerate(zip([1, 0, 1], [0.25, 0.5, 1.0], strict=True)):
        sides = [
            (3 * 128 / 255 + float(2 * n[1] + n[3])) / math.sqrt(5)
            for n in (noise[3 * copy + image].flatten() for copy in range(4))
        ]
        one = sum(1 / (1 + math.exp(-side)) for side in sides) / 4
        total += -math.log(one if label else 1 - one)
        sharp = sum(1 / (1 + math.exp(-1.5 * side)) for side in sides) / 4
        first, second = max(sharp, 1 - sharp), min(sharp, 1 - sharp)
        margin = Z(first) - Z(second)
        if counts and (sharp > 0.5) == (label == 1) and margin <= 4.0:
            total += 3.0 * sigma / 2 * (4.0 - margin)
    assert found == pytest.approx(total / 3, rel=1e-4)


def test_margins_beyond_float32_give_no_gradient_that_is_not_finite(make: Make) -> None:
    batch = make(clean=torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), sigma=torch.full((3,), 1e-3))
    Macer(beta=1e4).loss(batch).backward()
    assert batch.network.weight.grad.isfinite().all()
