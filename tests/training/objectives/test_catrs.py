"""The definition (Jeong, Kim, Shin 2023), worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.objectives import catrs
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.catrs import CatRS, astray, divergence, losses_and_hits, smallest

Make = Callable[..., Batch]


def test_the_smallest_losses_count_and_the_others_count_as_nothing() -> None:
    losses = torch.tensor([[3.0, 1.0], [1.0, 2.0], [2.0, 4.0], [5.0, 8.0]])  # four copies of two images
    assert smallest(losses, torch.tensor([2.0, 4.0])).tolist() == [(1 + 2) / 4, (1 + 2 + 4 + 8) / 4]


def test_losses_and_hits_of_copies() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[math.log(4), 0.0], [0.0, math.log(9)]]])
    losses, right = losses_and_hits(logits, torch.tensor([1, 1]))
    assert losses.flatten().tolist() == pytest.approx([-math.log(3 / 4), math.log(2), math.log(5), -math.log(9 / 10)])
    assert right.tolist() == [0.5, 0.5]  # the first of two equal logits is the vote


def test_divergence_from_a_soft_target() -> None:
    logits = torch.tensor([[[0.0, math.log(3)]], [[0.0, 0.0]]])
    found = divergence(logits, torch.tensor([[0.2, 0.8]])).flatten().tolist()
    by_hand = [
        0.2 * math.log(0.2 / 0.25) + 0.8 * math.log(0.8 / 0.75),
        0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5),
    ]
    assert found == pytest.approx(by_hand, abs=1e-6)
    assert divergence(logits, torch.tensor([[0.0, 1.0]]))[1].item() == pytest.approx(math.log(2))


def test_noise_goes_astray_within_its_bound_and_keeps_mean_and_deviation(make: Make) -> None:
    batch, target = make(), torch.tensor([[0.0, 1.0]] * 3)
    noise = batch.noise(4)
    moved = astray(batch, noise, target, 0.2, 4)
    for statistic in (lambda n: n.flatten(1).mean(1), lambda n: n.flatten(1).std(1, correction=0)):
        torch.testing.assert_close(statistic(moved), statistic(noise))
    images = batch.images.repeat(4, 1, 1, 1)
    before, after = (divergence(batch.logits(images + n), target) for n in (noise, moved))
    assert (after > before).all()


def test_one_step_astray_by_hand(make: Make) -> None:
    batch = make(clean=torch.zeros(1, 1, 2, 2, dtype=torch.uint8), labels=torch.tensor([1]), sigma=torch.tensor([1.0]))
    noise = [0.5, -1.0, 1.5, 1.0]
    found = astray(batch, torch.tensor(noise).view(1, 1, 2, 2), torch.tensor([[0.0, 1.0]]), 0.3, 1)
    direction = [0.0, -2 / math.sqrt(5), 0.0, -1 / math.sqrt(5)]
    moved = [n + 0.3 * d for n, d in zip(noise, direction, strict=True)]  # a step of 2 * 0.3, brought back to 0.3

    def moments(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / 4
        return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / 4)

    (mean, wide), (now, spread) = moments(noise), moments(moved)
    expected = [(v - now) / spread * wide + mean for v in moved]
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_it_is_gaussian_until_there_is_a_target(make: Make, drawn: Callable[[int], torch.Tensor]) -> None:
    batch = make()
    expected = cross_entropy(batch.network(batch.images + drawn(1)), batch.labels)
    torch.testing.assert_close(CatRS().loss(batch), expected)


@pytest.mark.parametrize(("label", "all_count"), [(1, True), (0, False)])
def test_the_loss_where_all_copies_are_right_and_where_none_is(
    label: int, all_count: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images at 1 are on side 1 by 3 / sqrt(5), which noise of .01 does not change: p is 1 for label 1, 0 for 0."""
    monkeypatch.setattr(catrs, "astray", lambda batch, noise, *rest: 2 * noise)
    target, sigma = torch.tensor([[0.3, 0.7]] * 3), torch.full((3,), 0.01)
    batch = make(clean=torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), labels=torch.full((3,), label), sigma=sigma,
                 known={"target": target})  # fmt: skip
    found = CatRS(copies=4, weight=5.0).loss(batch).item()
    noise = make(sigma=sigma).noise(4)
    total = 0.0
    for image in range(3):
        losses, gaps = [], []
        for copy in range(4):
            shift = noise[3 * copy + image].flatten()
            for scale, kept in ((1, losses), (2, gaps)):
                side = (3 + scale * float(2 * shift[1] + shift[3])) / math.sqrt(5)
                p1 = 1 / (1 + math.exp(-side))
                p = [1 - p1, p1]
                kl = 0.3 * math.log(0.3 / p[0]) + 0.7 * math.log(0.7 / p[1])
                kept.append(-math.log(p[label]) if scale == 1 else kl)
        total += sum(losses) / 4 + 5.0 * 0.01 * max(gaps) if all_count else min(losses) / 4
    assert found == pytest.approx(total / 3, rel=1e-5)


def test_the_target_is_made_once_after_the_gaussian_epochs() -> None:
    class Look:
        asked = 0

        def votes(self, passes: int) -> torch.Tensor:
            self.asked += 1
            return torch.full((5, 1, 2), 0.5)

    look, objective, known, first = Look(), CatRS(after=0.3), {}, None
    for epoch in range(10):
        known = objective.review(epoch, 10, known, look)  # type: ignore[arg-type]
        first = epoch if known and first is None else first
    assert (first, look.asked) == (3, 1)
    assert objective.review(0, 1, {}, look) == {}  # type: ignore[arg-type]
