from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dualsmooth.training import Config
from dualsmooth.training.config import Consistency, Gaussian, SmoothAdv
from dualsmooth.training.data import load_training_data
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.stages import smoothadv
from dualsmooth.training.stages.classifier import train_classifier
from dualsmooth.training.stages.objectives import objective_loss

LABELS = torch.tensor([1, 0, 1])
SIGMA = torch.tensor([0.25, 0.5, 1.0])


class Half(nn.Module):
    """Two classes, divided by the plane direction @ x = cut through [1,2,2] images."""

    def __init__(self, cut: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 2.0, 0.0, 1.0]) / 5**0.5)
        self.cut = cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = x.flatten(1) @ self.weight - self.cut
        return torch.stack([torch.zeros_like(side), side], 1)


def grey(value: int = 128) -> torch.Tensor:
    return torch.full((3, 1, 2, 2), value, dtype=torch.uint8)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_gaussian_is_cross_entropy_at_each_examples_level() -> None:
    noise = torch.randn(3, 1, 2, 2, generator=seeded())
    expected = cross_entropy(Half()(grey() / 255.0 + SIGMA.view(-1, 1, 1, 1) * noise), LABELS)
    torch.testing.assert_close(objective_loss(Gaussian())(Half(), grey(), LABELS, SIGMA, seeded(), 0), expected)


def test_consistency_is_the_published_loss_over_the_copies() -> None:
    noise = torch.randn(6, 1, 2, 2, generator=seeded())
    levels = SIGMA.repeat(2).view(-1, 1, 1, 1)
    logits = Half()(grey().repeat(2, 1, 1, 1) / 255.0 + levels * noise)
    p = logits.softmax(1).view(2, 3, 2)
    mean = p.mean(0)
    kl = (mean * (mean / p).log()).sum(-1).mean()
    entropy = -(mean * mean.log()).sum(-1).mean()
    expected = cross_entropy(logits, LABELS.repeat(2)) + 7 * kl + 0.3 * entropy
    found = objective_loss(Consistency(weight=7, eta=0.3))(Half(), grey(), LABELS, SIGMA, seeded(), 0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("attack", ["pgd", "ddn"])
def test_an_attack_moves_straight_to_the_other_side_within_its_bound(attack: str) -> None:
    network, images, bound = Half(), torch.full((3, 1, 2, 2), 0.5), torch.tensor([0.1, 0.2, 0.3])
    noise = 0.1 * torch.randn(12, 1, 2, 2, generator=seeded())
    ones = torch.ones(3, dtype=torch.int64)
    found = getattr(smoothadv, attack)(network, images, ones, noise, SIGMA, bound, 5).flatten(1)
    torch.testing.assert_close(found.norm(dim=1), bound)  # the plane is out of reach: the whole bound is used
    torch.testing.assert_close(found / bound[:, None], -network.weight.detach().expand(3, 4))


def test_ddn_stops_near_the_boundary_and_pgd_goes_to_its_bound() -> None:
    centre = float(torch.full((4,), 0.5) @ Half().weight.detach())
    network, images, bound = Half(centre - 0.1), torch.full((1, 1, 2, 2), 0.5), torch.tensor([0.4])
    arguments = (network, images, torch.tensor([1]), torch.zeros(2, 1, 2, 2), torch.tensor([0.5]), bound)
    assert float(smoothadv.pgd(*arguments, 5).norm()) == pytest.approx(0.4, rel=1e-5)
    assert 0.1 <= float(smoothadv.ddn(*arguments, 40).norm()) < 0.115


def test_attacked_images_stay_images() -> None:
    images = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    bound, noise = torch.full((3,), 2.0), torch.zeros(6, 1, 2, 2)
    for attack in (smoothadv.pgd, smoothadv.ddn):
        moved = images + attack(Half(), images, LABELS, noise, SIGMA, bound, 3)
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 1


@pytest.mark.parametrize(("relative", "epoch", "bounds"), [
    (False, 0, [0.2, 0.2, 0.2]), (False, 2, [0.6, 0.6, 0.6]), (False, 9, [0.6, 0.6, 0.6]), (True, 5, [0.15, 0.3, 0.6]),
])  # fmt: skip
def test_the_bound_warms_up_and_may_follow_the_level(
    relative: bool, epoch: int, bounds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def attack(network: nn.Module, images: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(rest[3])  # type: ignore[arg-type]
        return torch.zeros_like(images)

    monkeypatch.setattr(smoothadv, "pgd", attack)
    objective = SmoothAdv(epsilon=0.6, relative=relative, warm_up=3)
    objective_loss(objective)(Half(), grey(), LABELS, SIGMA, seeded(), epoch)
    torch.testing.assert_close(seen[0], torch.tensor(bounds))


def test_smoothadv_trains_on_the_attacked_image_with_the_noise_of_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothadv, "pgd", lambda network, images, *rest: torch.full_like(images, 0.25))
    noise = SIGMA.repeat(2).view(-1, 1, 1, 1) * torch.randn(6, 1, 2, 2, generator=seeded())
    expected = cross_entropy(Half()((grey() / 255.0 + 0.25).repeat(2, 1, 1, 1) + noise), LABELS.repeat(2))
    torch.testing.assert_close(objective_loss(SmoothAdv())(Half(), grey(), LABELS, SIGMA, seeded(), 0), expected)


def test_an_attack_leaves_gradients_statistics_and_mode_alone() -> None:
    network = build(ModelSpec("small-cnn", 0.25, 2, (1, 8, 8), (0.5,), (0.5,))).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.rand(3, 1, 8, 8, generator=seeded())
    with smoothadv.frozen(network) as raw:
        smoothadv.pgd(raw, images, LABELS, torch.zeros(6, 1, 8, 8), SIGMA, SIGMA, 2)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Consistency(weight=2.0), SmoothAdv(), SmoothAdv(attack="ddn", relative=True)])
def test_every_objective_learns(objective: Consistency | SmoothAdv, tiny: Config, tmp_path: Path) -> None:
    data = load_training_data(tiny)
    settings = dataclasses.replace(tiny.classifier, objective=objective, epochs=12)
    network = train_classifier(tmp_path / "c.pt", data, tiny, levels=tiny.sigmas, settings=settings)
    images = torch.from_numpy(data.validation_images) / 255.0
    noisy = images + 0.25 * torch.randn(images.shape, generator=seeded())
    assert (network(noisy).argmax(1) == torch.from_numpy(data.validation_labels)).float().mean() > 0.7
