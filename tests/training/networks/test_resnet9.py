from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx
from dualsmooth.export.checks.agreement import FLOORS, Pictures, agreement
from dualsmooth.export.onnx.graph import to_model
from dualsmooth.export.onnx.precision import to_int8
from dualsmooth.training import Config
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.gaussian import Gaussian

Shape = tuple[int, int, int]


def spec(shape: Shape = (3, 32, 32), width: float = 1.0, depth: float = 1.0) -> ModelSpec:
    return ModelSpec("resnet9", width, 10, shape, (0.5,) * shape[0], (0.25,) * shape[0], depth)


def test_the_plan_is_the_stated_one() -> None:
    network = build(spec())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(3.7e6, rel=0.01)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [48, 96, 96, 96, 192, 384, 384, 384]
    assert all(m.kernel_size == (3, 3) for m in convolutions)


@pytest.mark.parametrize(("width", "depth", "features", "pairs"), [(0.25, 1.0, 96, 2), (0.5, 2.0, 192, 4)])
def test_width_and_depth_scale_it(width: float, depth: float, features: int, pairs: int) -> None:
    network = build(spec(width=width, depth=depth))
    assert network.head.in_features == features
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 4 + 2 * pairs


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 5, 9), (3, 1, 1)])
def test_images_of_any_size_are_taken(shape: Shape) -> None:
    network = build(spec(shape, 0.25)).eval()
    x = torch.rand(2, *shape)
    torch.testing.assert_close(network(x), network.head(network.trunk((x - 0.5) / 0.25)))


def test_int8_agrees_with_float32(tiny: Config) -> None:
    """A network that has learnt something: two kinds of stripes under noise, 28x28."""
    generator = np.random.default_rng(0)
    labels = np.arange(192) % 2
    images = generator.integers(0, 60, (192, 1, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 14 * label : 14 * label + 8] += 150
    network = build(spec((1, 28, 28), 0.25))
    initialise(network, torch.Generator().manual_seed(0))
    optimizer, noise = torch.optim.AdamW(network.parameters(), 1e-3), torch.Generator().manual_seed(1)
    clean, truth = torch.from_numpy(images[:96]), torch.from_numpy(labels[:96])
    for _ in range(12):
        value = Gaussian().loss(Batch(network, clean, truth, torch.full((96,), 0.5), noise))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    model = to_model(network.eval(), (1, 28, 28))
    pictures = Pictures.choose("stripes", images, calibrate=24, measure=96)
    int8 = to_int8(model, pictures.noisy((0.5,)))
    found = agreement(model, int8, pictures.noisy((0.5,), held_out=True), "classifier.onnx")
    assert min(found.values()) >= FLOORS["int8"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert len(to_onnx(network, (1, 28, 28))) > 2.5 * int8.ByteSize()
