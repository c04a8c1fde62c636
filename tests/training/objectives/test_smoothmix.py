"""The definition (Jeong et al. 2021, section 3), worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from dualsmooth.training.objectives import smoothmix
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.smoothmix import SmoothMix, adversarial, mix

Make = Callable[..., Batch]


def test_images_and_predictions_are_mixed_by_the_same_share() -> None:
    images, others = torch.zeros(1, 1, 1, 2), torch.tensor([1.0, 0.5]).view(1, 1, 1, 2)
    mixed, target = mix(images, others, torch.tensor([[0.9, 0.1, 0.0, 0.0]]), torch.tensor([0.4]))
    assert mixed.flatten().tolist() == pytest.approx([0.4, 0.2])
    assert target.flatten().tolist() == pytest.approx([0.6 * 0.9 + 0.1, 0.6 * 0.1 + 0.1, 0.1, 0.1])


def test_the_adversarial_image_goes_its_whole_way_within_the_box(make: Make) -> None:
    batch = make(labels=torch.ones(3, dtype=torch.int64))
    found = adversarial(batch, torch.zeros(6, 1, 2, 2), torch.tensor([0.05, 0.1, 0.5]), 2)
    grey, a, b = 128 / 255, 2 / math.sqrt(5), 1 / math.sqrt(5)
    expected = [[grey, grey - 2 * step * a, grey, grey - 2 * step * b] for step in (0.05, 0.1)]
    assert found[:2].flatten(1).flatten().tolist() == pytest.approx([v for row in expected for v in row], abs=1e-6)
    assert found[2].flatten().tolist() == pytest.approx([grey, 0.0, grey, grey - 2 * 0.5 * b], abs=1e-6)


@pytest.mark.parametrize(("epoch", "weight"), [(0, 1.5), (3, 6.0), (8, 6.0)])
def test_the_loss_by_hand(
    epoch: int, weight: float, make: Make, drawn: Callable[[int], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothmix, "adversarial", lambda batch, *rest: torch.full_like(batch.images, 0.1))
    found = SmoothMix(eta=6.0, copies=2, warm_up=4).loss(make(epoch=epoch)).item()
    noise, again = drawn(2), make()
    again.noise(2)
    shares = (torch.rand(3, generator=again.generator) / 2).tolist()

    def prediction(level: float, image: int, copy: int) -> float:
        """The probability of class 1 for an image that is `level` everywhere."""
        n = noise[3 * copy + image].flatten()
        return 1 / (1 + math.exp(-(3 * level + float(2 * n[1] + n[3])) / math.sqrt(5)))

    total = 0.0
    for image, (label, share) in enumerate(zip([1, 0, 1], shares, strict=True)):
        ones = [prediction(128 / 255, image, copy) for copy in range(2)]
        total += sum(-math.log(p if label else 1 - p) for p in ones) / 2
        smoothed = sum(ones) / 2
        target = (1 - share) * smoothed + share / 2
        mixed = [prediction((1 - share) * 128 / 255 + share * 0.1, image, copy) for copy in range(2)]
        kl = [target * math.log(target / p) + (1 - target) * math.log((1 - target) / (1 - p)) for p in mixed]
        if (smoothed > 0.5) == (label == 1):
            total += weight * sum(kl) / 2
    assert found == pytest.approx(total / 3, rel=1e-4)
