"""The networks of the bench: bundles that are what their modules say, and the plain loop counts every pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import dualsmooth as ds
from dualsmooth.export import bench


def test_a_bundle_is_its_module(tmp_path: Path) -> None:
    made = bench.bundle("resnet20", "fp32", tmp_path)
    assert made.input_shape == (3, 32, 32)
    engine = ds.load(made.path, threads=1).engine
    batch = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = bench.module("resnet20")(torch.from_numpy(batch)).argmax(1)
    assert engine.votes(made.classifiers[0], batch, 0.5, 10).tolist() == expected.tolist()
    assert bench.bundle("resnet20", "fp32", tmp_path) == made


def test_the_shipped_cnn_has_the_shape_of_the_shipped_bundle(tmp_path: Path) -> None:
    shipped = bench.bundle("shipped-cnn", "fp32", tmp_path)
    assert shipped.input_shape == bench.SPECS["shipped-cnn"].input_shape
    assert list(tmp_path.iterdir()) == []


def test_the_plain_loop_runs_every_pass() -> None:
    rows = []

    class Probe(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows.append(len(x))
            return x.flatten(1)

    loop = bench.plain_loop(Probe(), (1, 1, 2), 0.5, 64, 0)
    assert loop(200) == 200
    assert rows == [64, 64, 64, 8]


def test_unknown_networks_are_refused(tmp_path: Path) -> None:
    for make in (bench.module, lambda name: bench.bundle(name, "fp32", tmp_path)):
        with pytest.raises(ds.InputError, match="network 'alexnet' is unknown"):
            make("alexnet")
