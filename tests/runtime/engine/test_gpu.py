"""On a real NVIDIA GPU: `make gpu` (docs/gpu.md). Elsewhere each test skips, and says why.

Where `DUALSMOOTH_GPU` is set, as `make gpu` does, what would skip fails.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands.doctor import GOOD, examine
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import PROVIDERS
from dualsmooth.runtime.engine.providers.cuda import Cuda
from dualsmooth.runtime.engine.wheels import onnxruntime_for
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.statistics.votes import Stream, Tally

pytestmark = pytest.mark.gpu
STREAM = Stream("classifier", 0, "estimation")
TABLE = Noise("table", "Philox4x32")


def missing(reason: str) -> NoReturn:
    if os.environ.get("DUALSMOOTH_GPU"):
        pytest.fail(reason)
    pytest.skip(reason)


def require(name: str) -> None:
    try:
        onnxruntime_for(PROVIDERS[name])
    except ds.ProviderError as error:
        missing(str(error))
    if reason := PROVIDERS[name].why_missing():
        missing(f"provider {name}: {reason}")


@pytest.fixture(params=["cuda", "tensorrt"])
def provider(request: pytest.FixtureRequest) -> str:
    """A provider that runs on this machine's GPU."""
    require(request.param)
    return str(request.param)


@pytest.fixture
def cupy() -> Any:
    require("cuda")
    found = Cuda().array_module()
    if found is np:
        missing("CuPy is not installed; pip install cupy-cuda12x, or cupy-cuda13x, as the driver has it")
    return found


@pytest.fixture
def images() -> np.ndarray:
    """uint8 [4,1,28,28]"""
    with np.load(SHIPPED_IMAGES) as arrays:
        return arrays["x"][:4, None]


def drawn(xp: Any, noise: Noise, image: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Noisy copies [sum of sizes,C,H,W] that a library makes in calls of so many."""
    source, parts = Seed.make(1, noise).generator(STREAM), []
    for size in sizes:
        out = xp.empty((size, *image.shape), np.float32)
        add_noise(source, image, 0.5, out, noise.mode, xp=xp)
        parts.append(out if xp is np else xp.asnumpy(out))
    return np.concatenate(parts)


@pytest.mark.parametrize("generator", ["Philox4x32", "SFC64"])
@pytest.mark.parametrize("mode", ["table", "lattice", "float"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7)])
def test_noise_of_the_device_is_that_of_the_cpu(cupy: Any, shape: tuple[int, ...], mode: str, generator: str) -> None:
    """Bit for bit, but for float normals that the device makes: they differ in the last bits of their logarithms."""
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32) / np.float32(255)
    noise = Noise(mode, generator)
    host, device = drawn(np, noise, image, (60,)), drawn(cupy, noise, image, (1, 2, 57))
    if (mode, generator) == ("float", "Philox4x32"):
        assert np.abs(host - device).max() < 1e-5
    else:
        assert np.array_equal(host, device)


def test_noise_stays_on_the_device(cupy: Any, tmp_path: Path) -> None:
    """Bound by address, it gets the votes that the same numbers get when the CPU has them."""
    bundle = ds.read_bundle(toys.two_levels(tmp_path / "b"))
    gpu, model = OnnxEngine(bundle, Cuda(), batch_size=64), bundle.classifiers[0]
    assert gpu.xp is cupy
    out = cupy.empty((50, 1, 1, 2), np.float32)
    add_noise(Seed.make(1, TABLE).generator(STREAM), toys.image(0.6, 0.2), 0.5, out, "table", xp=cupy)
    assert (gpu.votes(model, out, 0.5, 2) == OnnxEngine(bundle).votes(model, cupy.asnumpy(out), 0.5, 2)).all()


@pytest.mark.parametrize("noise", [Noise("table"), TABLE, Noise("float", "Philox4x32")], ids=str)
def test_certificates_are_replayed(provider: str, noise: Noise, images: np.ndarray) -> None:
    with ds.load(SHIPPED_BUNDLE, provider=provider) as smoother:
        for image in images:
            certificate = smoother.certify(image, budget=ds.Adaptive(1000), noise=noise)
            assert certificate.artefact.provider == provider
            smoother.replay(certificate, image)


def test_exact_votes_are_those_of_the_cpu(provider: str, tmp_path: Path) -> None:
    """Half-spaces whose cuts lie half a step from all noisy values: no rounding moves a vote."""
    path = toys.two_levels(tmp_path / "b", estimator_cut=127.5 / 255, classifier_cuts=(76.5 / 255, 102.5 / 255))
    image, terms = np.array([[[200, 60]]], np.uint8), {"budget": ds.Fixed(2000), "seed": 1, "noise": TABLE}
    with ds.load(path) as cpu, ds.load(path, provider=provider) as gpu:
        assert gpu.certify(image, **terms).tally == cpu.certify(image, **terms).tally


def moved(one: Tally, other: Tally) -> float:
    """The share of votes that differ, of the streams that both have."""
    both = one.looks.keys() & other.looks.keys()
    off = sum(int(np.abs(one.counts(stream) - other.counts(stream)).sum()) // 2 for stream in both)
    return off / sum(one.passes(stream) for stream in both)


def test_votes_of_a_network_are_nearly_those_of_the_cpu(provider: str, images: np.ndarray) -> None:
    """The same noise, bit for bit; the kernels round otherwise (TensorRT with TF32), so few votes move."""
    with ds.load(SHIPPED_BUNDLE) as cpu, ds.load(SHIPPED_BUNDLE, provider=provider) as gpu:
        for image in images:
            ours, theirs = (s.certify(image, budget=ds.Fixed(2000), seed=1, noise=TABLE) for s in (cpu, gpu))
            assert moved(ours.tally, theirs.tally) < 0.01
            assert theirs.label == ours.label


def test_the_commands_run_on_it(provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--seconds", "0.2", "--turns", "1", "--json", "--noise", "table:philox4x32"]
    assert main(["bench", str(SHIPPED_BUNDLE), "--provider", provider, *few]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["provider"] == provider
    (found,) = examine("providers")
    assert provider in found.text
    assert found.state == GOOD
