"""Batches on a device: the binding on a real session, the wiring with a stand-in array module. test_gpu.py: devices."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.engine.device import run_bound
from dualsmooth.runtime.engine.providers import nvidia
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.providers.cuda import Cuda
from dualsmooth.runtime.engine.providers.openvino import OpenVino
from dualsmooth.runtime.noise.add import MODES, add_noise
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 0, "estimation")


def make(path: Path) -> Path:
    return toys.two_levels(path)


def test_a_bound_batch_gives_the_same_logits(tmp_path: Path) -> None:
    """The binding by address, on the CPU provider: logits of the rows that lie there."""
    session = onnxruntime.InferenceSession(str(make(tmp_path / "b") / "classifier_0.onnx"))
    batch = np.random.default_rng(0).standard_normal((9, 1, 1, 2), np.float32)
    for rows in (9, 4, 1):
        bound = run_bound(session, batch[:rows], None, ("cpu", 0))
        assert np.array_equal(bound, session.run(None, {"x": batch[:rows]})[0])


class Device(np.ndarray):
    """An array that stands for one on a GPU: it may meet arrays of its own kind only where CuPy allows it."""

    device = contextlib.nullcontext()


class FakeCupy:
    """NumPy's functions, with `Device` arrays."""

    float32 = np.float32

    def __getattr__(self, name: str) -> Any:
        made = getattr(np, name)
        if name not in ("empty", "zeros", "full", "asarray", "ascontiguousarray"):
            return made
        return lambda *args, **options: made(*args, **options).view(Device)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("generator", ["SFC64", "Philox4x32"])
def test_noise_is_the_same_under_another_array_module(mode: str, generator: str) -> None:
    image = np.array([[[51 / 255, 102 / 255]]], np.float32)
    seed, xp = Seed.make(1, Noise(mode, generator)), FakeCupy()
    host, device = np.empty((40, 1, 1, 2), np.float32), xp.empty((40, 1, 1, 2), np.float32)
    add_noise(seed.generator(STREAM), image, 0.5, host, mode)
    add_noise(seed.generator(STREAM), image, 0.5, device, mode, xp=xp)
    assert np.array_equal(host, np.asarray(device))


def test_a_smoother_with_device_batches_gives_the_same_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path (buffers, noise, padding, binding) with the stand-in and a fixed batch of 64 rows."""
    smoother = ds.load(make(tmp_path / "b"), threads=1, batch_size=64)
    image, budget = toys.image(0.6, 0.2), ds.Adaptive(1000, n0=30)
    plain = smoother.certify(image, budget=budget, seed=1)
    shapes = []

    def bound(session: Any, batch: Any, sigma: Any, location: tuple[str, int]) -> Any:
        assert type(batch) is Device
        shapes.append(batch.shape)
        return session.run(None, {"x": np.asarray(batch)})[0]

    monkeypatch.setattr("dualsmooth.runtime.engine.onnx_engine.run_bound", bound)
    smoother.engine.xp, smoother.engine._fixed = FakeCupy(), 64
    assert smoother.certify(image, budget=budget, seed=1).to_json() == plain.to_json()
    assert set(shapes) == {(64, 1, 1, 2)}


def test_cupy_is_used_for_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "find_spec", lambda name: object())
    assert Cpu().array_module() is np
    assert OpenVino().array_module() is np
    broken = SimpleNamespace(cuda=SimpleNamespace(Device=lambda number: 1 / 0))
    monkeypatch.setattr(nvidia, "import_module", lambda name: broken)
    with pytest.raises(ds.ProviderError, match=r"CuPy does not work \(division by zero\).*pip install cupy-cuda"):
        Cuda().array_module()
    monkeypatch.setattr(nvidia, "find_spec", lambda name: None)
    assert Cuda().array_module() is np
