from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dualsmooth.training.loop.optimizer import optimizer_of
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec, Network

LR, DECAY = 1e-3, 0.5


def residual() -> Network:
    torch.manual_seed(3)
    return build(ModelSpec("resnet9", 0.25, 3, (3, 8, 8), (0.5,) * 3, (1.0,) * 3))


def stepped(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights before one step of Muon on some loss; the gradients stay in the network."""
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = optimizer_of("muon", network, LR, DECAY)
    optimizer.zero_grad()
    logits = network(torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    logits.log_softmax(-1)[:, 0].sum().backward()
    optimizer.step()
    return before


def test_inner_weights_move_by_an_orthogonal_matrix_and_all_others_by_adamw() -> None:
    network = residual()
    before = stepped(network)
    inner = 0
    for name, weight in network.named_parameters():
        gradient = weight.grad
        assert gradient is not None
        moved = (before[name] * (1 - LR * DECAY) - weight.detach()).flatten(1) if weight.ndim > 1 else None
        if name.startswith(("trunk.0.", "head.")) or moved is None:
            change = before[name] * (1 - LR * DECAY) - weight.detach()
            clear = gradient.abs() > 1e-4  # AdamW's first step has the size of the learning rate, whatever the gradient
            assert torch.allclose(change[clear], LR * gradient[clear].sign(), rtol=2e-2, atol=1e-6), name
            continue
        inner += 1
        u, s, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        step = moved / (LR * 0.2 * max(moved.shape) ** 0.5)
        felt = s > 1e-2 * s[0]  # five iterations bring the larger singular values near 1, and no farther
        gains = (u.T @ step @ v.T).diagonal()[felt]
        assert 0.6 < float(gains.min()) <= float(gains.max()) < 1.3, name
    assert inner == 7


def test_the_order_in_memory_does_not_matter() -> None:
    plain, last = residual(), residual().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = stepped(plain)
    stepped(last)
    for (name, one), other in zip(plain.named_parameters(), last.parameters(), strict=True):
        apart, step = (one - other).detach().norm(), (one - before[name]).detach().norm()
        assert float(apart) < 0.1 * float(step), name  # bfloat16's sums differ


def test_what_is_fixed_stays() -> None:
    network = residual()
    for part in (network.trunk[4], network.trunk[1]):  # type: ignore[index]
        part.requires_grad_(requires_grad=False)
    before = stepped(network)
    moved = {name.split(".")[1] for name, value in network.named_parameters() if not torch.equal(before[name], value)}
    assert {"1", "4"}.isdisjoint(moved)
    assert {"0", "3", "6", "8"} <= moved


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_its_state_goes_on(name: str) -> None:
    network, generator = residual(), torch.Generator().manual_seed(2)
    optimizer = optimizer_of(name, network, LR, DECAY)

    def step() -> None:
        optimizer.zero_grad()
        network(torch.rand(8, 3, 8, 8, generator=generator))[:, 0].sum().backward()
        optimizer.step()

    step()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    noise, state = generator.get_state(), copy.deepcopy(optimizer.state_dict())
    step()
    after = [value.clone() for value in network.parameters()]
    network.load_state_dict(weights)
    generator.set_state(noise)
    optimizer = optimizer_of(name, network, LR, DECAY)
    optimizer.load_state_dict(state)
    step()
    assert all(torch.equal(a, b) for a, b in zip(after, network.parameters(), strict=True))
