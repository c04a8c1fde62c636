"""The definition, worked by hand; then that the loop draws what it says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from scipy.stats import binom
from torch.nn.functional import cross_entropy

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config
from dualsmooth.training.data import load_training_data
from dualsmooth.training.objectives import reweighted
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.objective import WEIGHTS
from dualsmooth.training.objectives.reweighted import Reweighted, against
from dualsmooth.training.stages.classifier import train_classifier

Make = Callable[..., Batch]
Z = NormalDist().inv_cdf


class Fixed:
    """A look that finds what it is told, one answer a call."""

    def __init__(self, *answers: torch.Tensor) -> None:
        self.answers, self.asked = list(answers), []

    def hits(self, passes: int) -> torch.Tensor:
        self.asked.append(passes)
        return self.answers.pop(0)


def test_weights_are_the_quantile_of_a_lower_bound_on_the_share() -> None:
    low, middle, high = Reweighted(votes=16).weights(torch.tensor([0.0, 14 / 16, 1.0])).tolist()
    assert high == pytest.approx(Z(0.1 ** (1 / 16)), abs=1e-6)  # 16 of 16 hits: p^16 = 0.1
    for weight, hits in ((low, 12), (middle, 14)):  # below 3/4 counts as 3/4
        assert binom.sf(hits - 1, 16, NormalDist().cdf(weight)) == pytest.approx(0.1, abs=1e-5)


def test_hard_images_are_dropped_once_and_the_others_weighed_again() -> None:
    objective = Reweighted(after=0.4, every=0.2, threshold=0.5, judging=100, votes=16)
    share = torch.tensor([[0.49], [0.50], [0.99]])
    look = Fixed(share, torch.tensor([[1.0], [1.0], [0.0]]))
    known: dict[str, torch.Tensor] = {}

    def weights(*shares: float) -> list[float]:
        return objective.weights(torch.tensor(shares)).tolist()

    for epoch in range(8):
        known = objective.review(epoch, 10, known, look)  # type: ignore[arg-type]
        if epoch < 4:
            assert not known
        if epoch in (4, 5):
            assert known[WEIGHTS][:, 0].tolist() == pytest.approx([0.0, *weights(0.50, 0.99)])
    assert look.asked == [100, 16]  # before epochs 4 and 6
    assert known[WEIGHTS][:, 0].tolist() == pytest.approx([0.0, *weights(1.0, 0.0)])


def test_nothing_that_is_left_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(InputError, match=r"lower classifier\.objective\.threshold") as caught:
        Reweighted().review(4, 10, {}, Fixed(torch.tensor([[0.1]])))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_noise_is_moved_against_the_classifier_and_keeps_its_norm(make: Make) -> None:
    batch = make(labels=torch.tensor([1, 0, 1]))  # right, wrong, right: the grey images are of class 1
    noise = torch.tensor([[0.0, 0.0, 0.3, 0.4], [0.3, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).view(3, 1, 2, 2)
    found = against(batch, noise, torch.tensor([0.5, 0.5, 0.25]), 1).flatten(1)
    a, b = 2 / math.sqrt(5), 1 / math.sqrt(5)  # the direction, of which the gradient of the loss is the opposite

    def moved(values: list[float], length: float) -> list[float]:
        there = [v - length * d for v, d in zip(values, (0.0, a, 0.0, b), strict=True)]
        scale = math.hypot(*values) / math.hypot(*there)
        return [v * scale for v in there]

    assert found[0].tolist() == pytest.approx(moved([0.0, 0.0, 0.3, 0.4], 0.5), abs=1e-6)
    assert found[1].tolist() == pytest.approx([0.3, 0.4, 0.0, 0.0])  # the network errs already
    assert found[2].tolist() == pytest.approx(moved([0.0, 0.0, 0.0, 1.0], 0.25), abs=1e-6)
    twice = against(batch, noise, torch.tensor([0.5, 0.5, 0.25]), 2).flatten(1)
    assert twice[0].tolist() == pytest.approx(moved(moved([0.0, 0.0, 0.3, 0.4], 0.5), 0.5), abs=1e-6)
    torch.testing.assert_close(twice.norm(dim=1), noise.flatten(1).norm(dim=1))


@pytest.mark.parametrize(("epoch", "attacked"), [(0, False), (3, False), (4, True), (9, True)])
def test_the_loss_is_cross_entropy_and_attacked_after_its_epoch(
    epoch: int, attacked: bool, make: Make, drawn: Callable[[int], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[torch.Tensor] = []

    def moved(batch: Batch, noise: torch.Tensor, length: torch.Tensor, steps: int) -> torch.Tensor:
        lengths.append(length)
        return -noise

    monkeypatch.setattr(reweighted, "against", moved)
    batch = make(epoch=epoch, epochs=10)
    noise = -drawn(2) if attacked else drawn(2)
    logits = batch.network(batch.images.repeat(2, 1, 1, 1) + noise)
    found = Reweighted(after=0.4, copies=2, step=0.5).loss(batch)
    torch.testing.assert_close(found, cross_entropy(logits, batch.labels.repeat(2)))
    assert [length.tolist() for length in lengths] == [[0.125, 0.25, 0.5] * 2] * attacked


def test_images_that_were_dropped_are_not_drawn_any_more(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_training_data(tiny)
    seen: dict[int, set[int]] = {}
    numbered = data.images.copy()
    numbered[:, 0, 0, 0] = range(len(numbered))

    def loss(self: Reweighted, batch: Batch) -> torch.Tensor:
        seen.setdefault(batch.epoch, set()).update(batch.clean[:, 0, 0, 0].tolist())
        return batch.network(batch.images).square().mean()

    def review(
        self: Reweighted, epoch: int, epochs: int, known: dict[str, torch.Tensor], look: object
    ) -> dict[str, torch.Tensor]:
        return {WEIGHTS: (torch.arange(160) % 2).float()[:, None]} if epoch else {}

    monkeypatch.setattr(Reweighted, "loss", loss)
    monkeypatch.setattr(Reweighted, "review", review)
    settings = dataclasses.replace(tiny.classifier, objective=Reweighted(), epochs=3)
    data = dataclasses.replace(data, images=numbered)
    train_classifier(tmp_path / "c.pt", data, tiny, levels=(0.5,), settings=settings)
    assert seen[0] == set(range(160))
    assert {number % 2 for number in seen[1] | seen[2]} == {1}
