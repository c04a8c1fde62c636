from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx
from dualsmooth.export.checks.parity import TOLERANCE, check_parity
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec, copy_trunk
from dualsmooth.training.networks.pretrained import load_pretrained
from dualsmooth.training.networks.resnet import Block


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


@pytest.mark.parametrize(
    ("name", "depth", "layers"), [("resnet20", 1.0, 20), ("resnet32", 2.0, 62), ("resnet8", 1.0, 8)]
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 9)])
def test_residual_networks_have_their_layers_at_any_size(
    name: str, depth: float, layers: int, shape: tuple[int, int, int]
) -> None:
    values = (0.5,) * shape[0]
    network = build(ModelSpec(name, 0.25, 5, shape, values, values, depth))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == layers
    assert network(torch.rand(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("inputs", [4, 8, 12])
def test_a_shortcut_is_the_same_in_training(inputs: int) -> None:
    """Where a backward pass would leave its memory, training takes another way."""
    shortcut = Block(inputs, 16, 2).shortcut[0]  # type: ignore[index]
    x = torch.rand(3, inputs, 7, 8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(shortcut.train()(x), shortcut.eval()(x))


def test_resnet20_has_the_published_size() -> None:
    network = build(ModelSpec("resnet20", 1.0, 10, (3, 32, 32), (0.5,) * 3, (0.5,) * 3))
    assert 0.27e6 < sum(p.numel() for p in network.parameters()) < 0.28e6


def test_depth_adds_layers_to_the_small_network() -> None:
    deep = build(dataclasses.replace(spec(), depth=2.0))
    assert sum(isinstance(m, nn.Conv2d) for m in deep.modules()) == 7
    assert ModelSpec.from_dict(dataclasses.replace(spec(), depth=2.0).to_dict()).depth == 2.0


@pytest.fixture(params=["torchvision:resnet18", "timm:resnet10t"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name.partition(":")[0])
    return name


def borrowed_spec(name: str, channels: int = 1, outputs: int = 7) -> ModelSpec:
    return ModelSpec(name, 1.0, outputs, (channels, 32, 32), (0.5,) * channels, (0.25,) * channels)


def test_borrowed_networks_take_any_channels_and_get_a_new_head(library: str) -> None:
    network = build(borrowed_spec(library)).eval()
    x = torch.rand(2, 1, 32, 32)
    assert network(x).shape == (2, 7)
    torch.testing.assert_close(network(x), network.head(network.trunk((x - 0.5) / 0.25)))


def test_borrowed_networks_are_initialised_from_the_generator_alone(library: str) -> None:
    first, second, third = (build(borrowed_spec(library)) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (third, 2)):
        initialise(network, torch.Generator().manual_seed(seed))
    a, b, c = (next(iter(network.parameters())) for network in (first, second, third))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_published_weights_come_from_a_file(library: str, tmp_path: Path) -> None:
    kind, _, name = library.partition(":")
    module = importlib.import_module("torchvision.models" if kind == "torchvision" else kind)
    original = (module.get_model(name, weights=None) if kind == "torchvision" else module.create_model(name)).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, tmp_path / "w.pth")
    whole = build(borrowed_spec(library, 3, 1000)).eval()
    load_pretrained(whole, tmp_path / "w.pth")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(whole(x), original((x - 0.5) / 0.25))
    grey = build(borrowed_spec(library, 1, 7)).eval()
    head = grey.head.weight.clone()
    load_pretrained(grey, tmp_path / "w.pth")
    torch.testing.assert_close(grey.trunk(x[:, :1]), whole.trunk(x[:, :1].repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)
    assert torch.equal(head, grey.head.weight)


def test_own_weights_come_from_a_file_and_others_are_refused(tmp_path: Path) -> None:
    source, target = build(spec(10)), build(spec(3))
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_pretrained(target, tmp_path / "w.pth")
    assert torch.equal(source.trunk[0].weight, target.trunk[0].weight)  # type: ignore[index]
    with pytest.raises(InputError, match="does not fit") as caught:
        load_pretrained(build(dataclasses.replace(spec(), width=0.5)), tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    (tmp_path / "bad.pth").write_bytes(b"junk")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (("none.pth", "cannot read"), ("bad.pth", "cannot read"), ("list.pth", "no state dict")):
        with pytest.raises(InputError, match=message):
            load_pretrained(target, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "is unknown"), ("resnet2", "is unknown"), ("torchvision:resnet19", "expected e.g. resn"),
        ("torchvision:squeezenet1_0", "cannot serve images"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_built_are_refused(name: str, message: str) -> None:
    if ":" in name:
        pytest.importorskip("torchvision")
    with pytest.raises(InputError, match=message) as caught:
        build(borrowed_spec(name))
    assert "\n" not in str(caught.value)
    if ":" in name:
        with pytest.raises(InputError, match="width and depth"):
            build(dataclasses.replace(borrowed_spec("torchvision:resnet18"), width=0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "shape"),
    [
        ("small-cnn", 0.25, (3, 9, 9)),
        ("resnet20", 0.25, (1, 8, 8)),
        ("resnet110", 1.0, (3, 8, 8)),
        ("torchvision:resnet50", 1.0, (3, 32, 32)),
        ("timm:resnet10t", 1.0, (1, 32, 32)),
    ],
)
def test_every_kind_of_network_is_exported_exactly(name: str, width: float, shape: tuple[int, int, int]) -> None:
    if ":" in name:
        pytest.importorskip(name.partition(":")[0])
    network = build(ModelSpec(name, width, 4, shape, (0.5,) * shape[0], (0.25,) * shape[0]))
    initialise(network, torch.Generator().manual_seed(1))
    network.train()(torch.rand(8, *shape))  # batch statistics that are not 0 and 1
    network.eval()
    assert check_parity(network, to_onnx(network, shape), shape, 4, 0.5, name) < TOLERANCE
