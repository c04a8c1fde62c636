from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.objectives.attacks import ATTACKS, ddn, pgd
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.smoothadv import SmoothAdv

Make = Callable[..., Batch]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_moves_straight_to_the_other_side_within_its_bound(attack: str, make: Make) -> None:
    bound = torch.tensor([0.1, 0.2, 0.3])
    batch = make(labels=torch.ones(3, dtype=torch.int64))
    noise = 0.1 * torch.randn(12, 1, 2, 2, generator=batch.generator)
    found = ATTACKS[attack](batch, noise, bound, 5).flatten(1)
    torch.testing.assert_close(found.norm(dim=1), bound)  # the plane is out of reach: the whole bound is used
    torch.testing.assert_close(found / bound[:, None], -batch.network.weight.detach().expand(3, 4))


def test_ddn_stops_near_the_boundary_and_pgd_goes_to_its_bound(make: Make) -> None:
    batch = make(labels=torch.ones(3, dtype=torch.int64))
    batch.network.cut = float(batch.images[0].flatten() @ batch.network.weight.detach()) - 0.1
    noise, bound = torch.zeros(6, 1, 2, 2), torch.full((3,), 0.4)
    assert float(pgd(batch, noise, bound, 5)[0].norm()) == pytest.approx(0.4, rel=1e-5)
    assert 0.1 <= float(ddn(batch, noise, bound, 40)[0].norm()) < 0.115


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_images_stay_images(attack: str, make: Make) -> None:
    clean = torch.tensor([0, 255, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    batch = make(clean=clean)
    moved = batch.images + ATTACKS[attack](batch, torch.zeros(6, 1, 2, 2), torch.full((3,), 2.0), 3)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1


@pytest.mark.parametrize(("relative", "epoch", "bounds"), [
    (False, 0, [0.2, 0.2, 0.2]), (False, 2, [0.6, 0.6, 0.6]), (False, 9, [0.6, 0.6, 0.6]), (True, 5, [0.15, 0.3, 0.6]),
])  # fmt: skip
def test_the_bound_warms_up_and_may_follow_the_level(
    relative: bool, epoch: int, bounds: list[float], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def attack(batch: Batch, noise: torch.Tensor, bound: torch.Tensor, steps: int) -> torch.Tensor:
        seen.append(bound)
        return torch.zeros_like(batch.images)

    monkeypatch.setitem(ATTACKS, "pgd", attack)
    SmoothAdv(epsilon=0.6, relative=relative, warm_up=3).loss(make(epoch=epoch))
    torch.testing.assert_close(seen[0], torch.tensor(bounds))


def test_smoothadv_trains_on_the_attacked_image_with_the_noise_of_the_attack(
    make: Make, drawn: Callable[[int], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "pgd", lambda batch, *rest: torch.full_like(batch.images, 0.25))
    batch = make()
    logits = batch.network((batch.images + 0.25).repeat(2, 1, 1, 1) + drawn(2))
    torch.testing.assert_close(SmoothAdv().loss(batch), cross_entropy(logits, batch.labels.repeat(2)))


def test_an_attack_leaves_gradients_statistics_and_mode_alone(make: Make) -> None:
    network = build(ModelSpec("small-cnn", 0.25, 2, (1, 8, 8), (0.5,), (0.5,))).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batch = make(network=network, clean=torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8))
    with batch.frozen() as frozen:
        pgd(frozen, torch.zeros(6, 1, 8, 8), batch.sigma, 2)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
