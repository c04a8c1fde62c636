"""Floating-point noise can tell two inputs apart whatever the ideal Gaussian says; noise on the lattice cannot.

The network asks whether every pixel is a multiple of 2^-24. From the input 1, float32 noise 1 + z only reaches
multiples of 2^-24; from the input 0 it reaches finer numbers. So the votes are unanimous at one input and few at
another, closer than the certified radius (after Voráček & Hein 2023, section 3).
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import special, stats

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, manifest_text
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, Stream

SHAPE = (1, 3, 3)
PIXELS = 9
SIGMA = 1.0
ONES, ZEROS = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
DISTANCE = 3.0
"""Between the two inputs, in L2."""
PASSES = 10_000
RULE = f"single:{SIGMA}"


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def multiples_onnx() -> bytes:
    """Votes 1 where every pixel is a multiple of 2^-24: the logits are (sum of |distances to one|, almost 0)."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["steps"]),
        helper.make_node("Round", ["steps"], ["whole"]),
        helper.make_node("Sub", ["steps", "whole"], ["rest"]),
        helper.make_node("Abs", ["rest"], ["off"]),
        helper.make_node("Gemm", ["off", "sum", "least"], ["logits"]),
    ]
    total = np.stack([np.ones(PIXELS), np.zeros(PIXELS)], 1).astype(np.float32)
    return graph(nodes, {"scale": np.float32([1 << 24]), "sum": total, "least": np.float32([0, 1e-30])})


@pytest.fixture(scope="module")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> ds.Smoother:
    path = tmp_path_factory.mktemp("lattice") / "bundle"
    path.mkdir()
    flat = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["logits"])]
    level = graph(flat, {"w": np.zeros((PIXELS, 2), np.float32), "b": np.float32([0, 1])})
    (path / "classifier.onnx").write_bytes(multiples_onnx())
    (path / "estimator.onnx").write_bytes(level)
    text = manifest_text(
        sigmas=(0.5, SIGMA),
        sigma_e=SIGMA,
        classes=("finer", "multiples"),
        input_shape=SHAPE,
        estimator=BaseModel(("estimator.onnx",)),
        classifiers=(BaseModel(("classifier.onnx",)),) * 2,
        precision="fp32",
        files={name: sha256_of(path / name) for name in ("classifier.onnx", "estimator.onnx")},
        provenance={},
    )
    (path / "manifest.json").write_text(text)
    return ds.load(path, threads=1)


def share_on_lattice(pixel: int) -> float:
    """P(the network votes 1) for an image of equal pixels `pixel` / 255, summed over all points of the lattice."""
    steps = np.arange(-4000, 4001)
    ends = (np.arange(-4000, 4002) - 0.5 - pixel) / (255 * SIGMA)
    upper = ends[:-1] > 0
    mass = np.where(upper, special.ndtr(-ends[:-1]) - special.ndtr(-ends[1:]), np.diff(special.ndtr(ends)))
    scaled = (steps / 255).astype(np.float32).astype(np.float64) * (1 << 24)
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    return float(mass[scaled == np.rint(scaled)].sum()) ** PIXELS


def certify(smoother: ds.Smoother, image: np.ndarray, noise: ds.Noise) -> ds.Certificate:
    return smoother.certify(image, rule=RULE, budget=ds.Fixed(PASSES), seed=3, noise=noise)


def ones_of(certificate: ds.Certificate) -> int:
    return int(certificate.tally.counts(Stream(CLASSIFIER, 1, ESTIMATION))[1])


@pytest.mark.parametrize("generator", ["SFC64", "Philox"])
def test_float_noise_proves_what_is_false(smoother: ds.Smoother, generator: str) -> None:
    """Two certificates contradict each other: label 1 within more than 3 of ones, and label 0 at zeros, 3 away."""
    noise = ds.Noise("float", generator)
    here, there = certify(smoother, ONES, noise), certify(smoother, ZEROS, noise)
    assert ones_of(here) == PASSES
    assert (here.label, there.label) == (1, 0)
    assert here.radius > DISTANCE
    assert there.radius > 0


@pytest.mark.parametrize("generator", sorted(GENERATORS))
def test_lattice_noise_keeps_to_the_ideal_gaussian(smoother: ds.Smoother, generator: str) -> None:
    """The share of votes is the enumerated one at both inputs, and no certificate says more than it allows."""
    if generator == "MKL":
        pytest.importorskip("mkl_random", reason="needs the extra fast")
    noise = ds.Noise("lattice", generator)
    for image, pixel in ((ONES, 255), (ZEROS, 0)):
        found, share = certify(smoother, image, noise), share_on_lattice(pixel)
        assert stats.binomtest(ones_of(found), PASSES, share).pvalue > 1e-6
        true = SIGMA * abs(float(special.ndtri(share)))
        assert found.radius <= true
        assert found.label in (None, int(share > 0.5))


def test_enumerated_shares_are_lipschitz(smoother: ds.Smoother) -> None:
    """Phi^-1(P) of the network behind lattice noise moves by at most 1/sigma along the way from zeros to ones."""
    values = [float(special.ndtri(share_on_lattice(pixel))) for pixel in range(256)]
    step = DISTANCE / 255 / SIGMA
    assert max(abs(np.diff(values))) <= step * (1 + 1e-9)
    assert max(values) - min(values) > 0.1 * step


def test_the_certificate_says_which_noise(smoother: ds.Smoother) -> None:
    found = certify(smoother, ONES, ds.Noise("lattice", "Philox"))
    again = ds.Certificate.from_json(found.to_json())
    assert again.seed.noise == ds.Noise("lattice", "Philox")
    smoother.replay(again, ONES)
    with pytest.raises(ds.CertificateError):
        smoother.replay(ds.Certificate.from_json(found.to_json().replace('"lattice"', '"float"')), ONES)


def test_images_off_the_lattice_are_refused(smoother: ds.Smoother) -> None:
    certify(smoother, np.full(SHAPE, 77, np.uint8), ds.Noise("lattice"))
    certify(smoother, np.full(SHAPE, 77 / 255, np.float32), ds.Noise("lattice"))
    for value in (0.3, np.nextafter(np.float32(77 / 255), np.float32(1))):
        with pytest.raises(ds.InputError, match="lattice"):
            certify(smoother, np.full(SHAPE, value, np.float32), ds.Noise("lattice"))
        with pytest.raises(ds.InputError, match="lattice"):
            smoother.predict(np.full(SHAPE, value, np.float32), noise=ds.Noise("lattice"))
