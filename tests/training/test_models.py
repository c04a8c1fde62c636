from __future__ import annotations

import pytest
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.models import ModelSpec, build, copy_trunk, initialise


def spec(outputs: int = 10, name: str = "small-cnn") -> ModelSpec:
    return ModelSpec(name, 1.0, outputs, (1, 28, 28), (0.3,), (0.4,))


def test_the_small_network_is_small_and_normalises_inside() -> None:
    network = build(spec()).eval()
    assert 250_000 < sum(p.numel() for p in network.parameters()) < 350_000
    x = torch.rand(2, 1, 28, 28)
    assert network(x).shape == (2, 10)
    expected = network.head(network.trunk((x - 0.3) / 0.4))
    torch.testing.assert_close(network(x), expected)


def test_initialisation_comes_from_the_generator_alone() -> None:
    first, second, third = (build(spec()) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (third, 2)):
        initialise(network, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, third.head.weight)


def test_copy_trunk_leaves_the_head_alone() -> None:
    source, target = build(spec(10)), build(spec(3))
    head = target.head.weight.clone()
    copy_trunk(source, target)
    for a, b in zip(source.trunk.state_dict().values(), target.trunk.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(head, target.head.weight)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(InputError, match="small-cnn"):
        build(spec(name="resnet-9000"))


def test_specs_survive_their_dictionary() -> None:
    assert ModelSpec.from_dict(spec().to_dict()) == spec()
