"""Gradient attacks on the shipped bundle: the machinery is right, certificates survive, overstated ones do not."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import attack_certificates
import numpy as np
import onnx
import pytest
import shipped
import torch
import torch_twin
from attack_certificates import attack_image, changed, lost_half, proven_answer, proven_route
from gradient_attack import Attack, Networks, away_from, inside

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.rules.sure import Sure

SMALL = Attack(steps=6, samples=8)


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.set_num_threads(1)
    return Networks.of(ds.load(SHIPPED_BUNDLE, threads=1))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.asarray(load_dataset(f"npz:{SHIPPED_IMAGES}").images, np.float32) / np.float32(255)


def test_the_twin_is_compared_with_what_is_deployed(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    smoother, estimator = networks.smoother, networks.smoother.bundle.estimator
    monkeypatch.setitem(torch_twin.OPERATORS, "Relu", lambda a, x: torch.nn.functional.leaky_relu(x, 0.01))
    with pytest.raises(ds.InputError, match="differs from ONNX Runtime"):
        torch_twin.checked_twin(smoother, estimator, len(smoother.bundle.sigmas))


def test_an_int8_graph_has_a_twin_whose_gradient_is_that_of_what_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployed logits within a few steps of rounding; and a small move along the gradient raises the deployed logit."""
    torch.set_num_threads(1)
    smoother = ds.load("cifar10", threads=1)
    bundle = smoother.bundle
    assert bundle.precision == "int8"
    model, width = bundle.classifiers[2], len(bundle.classes)
    twin = torch_twin.checked_twin(smoother, model, width)
    x = np.random.default_rng(0).normal(0.5, 1, (4, *bundle.input_shape)).astype(np.float32)
    noisy = torch.from_numpy(x).requires_grad_()
    twin(noisy)[:, 3].sum().backward()
    assert noisy.grad is not None
    step = noisy.grad / noisy.grad.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    before, after = (
        np.mean([smoother.engine.logits(name, x + s * step.numpy(), 1.0, width)[:, 3] for name in model.members], 0)
        for s in (0, 1)
    )
    assert (after > before).all()
    monkeypatch.setitem(torch_twin.OPERATORS, "QuantizeLinear", lambda a, x, scale, zero: x.clamp(0, 0.1))
    with pytest.raises(ds.InputError, match="differs from ONNX Runtime"):
        torch_twin.checked_twin(smoother, model, width)


def test_operators_that_the_twin_lacks_are_refused(tmp_path: Path) -> None:
    model = onnx.load(str(SHIPPED_BUNDLE / "estimator.onnx"))
    model.graph.node[0].op_type = "Mod"
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(ds.InputError, match="Mod"):
        torch_twin.twin_of(tmp_path / "m.onnx")


def test_attacks_stay_inside_and_gain(networks: Networks, images: np.ndarray) -> None:
    """The attack ends on the sphere and moves the votes further than a random direction of the same length."""
    image, radius = images[0], 2.0
    top = int(networks.votes(1, image, 500, Seed(1)).argmax())
    moved = SMALL.run(networks, image, radius, [(1, away_from(top))], seed=1)
    assert 0.99 * radius < np.linalg.norm(moved.astype(np.float64) - image) <= radius
    away = np.random.default_rng(0).normal(size=image.shape)
    random = inside(image, away * radius / np.linalg.norm(away), radius)
    aimed, blind = (networks.votes(1, x, 500, Seed(1))[top] for x in (moved, random))
    assert aimed < blind - 100


def test_rounding_never_leaves_the_ball() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        image, change = rng.random((1, 3, 3), np.float32), rng.normal(size=(1, 3, 3))
        radius = float(rng.uniform(0.01, 3))
        moved = inside(image, change * radius / np.linalg.norm(change), radius)
        assert np.linalg.norm(moved.astype(np.float64) - image) <= radius


def test_what_counts_as_a_proof() -> None:
    assert proven_route(np.array([900, 50, 50]), 1e-6) == 0
    assert proven_route(np.array([300, 200, 500]), 1e-6) is None
    assert proven_route(np.array([100, 800, 100]), 1e-6) == 1
    assert proven_route(np.array([100, 100, 800]), 1e-6) == 2
    assert lost_half(np.array([400, 600]), 0, 1e-6)
    assert not lost_half(np.array([490, 510]), 0, 1e-6)
    assert changed(np.array([300, 600, 100]), 0, 1e-6)
    assert not changed(np.array([450, 300, 250]), 0, 1e-6)


def test_what_counts_as_a_proof_of_a_cascades_answer() -> None:
    """Sure votes of each level, and last the others: the largest level that surely reaches P, if those above surely do
    not."""

    def answer(*votes: list[int]) -> int | None:
        return proven_answer(lambda level: np.array(votes[level]), len(votes), Sure((0.25,)), 1e-6)

    small, silent = [20, 900, 80, 0], [100, 50, 50, 800]
    assert answer(small, [0, 100, 500, 400]) == 2
    assert answer(small, silent) == 1
    assert answer(small, [250, 50, 50, 650]) is None  # about P: it may answer or not
    assert answer(small, [450, 440, 0, 110]) is None  # two classes come close
    assert answer([450, 440, 110, 0], silent) is None
    assert answer(small, [0, 0, 900, 100], silent) == 2


def overstate(networks: Networks, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the smoother issue certificates whose every radius is `factor` times what the votes prove."""
    real = type(networks.smoother).certify_many

    def forged(self: ds.Smoother, *args: Any, **options: Any) -> Any:
        for made in real(self, *args, **options):
            names = ("radius", "route_radius", "class_radius")
            larger = {name: factor * getattr(made.outcome, name) for name in names}
            yield dataclasses.replace(made, outcome=dataclasses.replace(made.outcome, **larger))

    monkeypatch.setattr(type(networks.smoother), "certify_many", forged)


def halves(rows: list[dict[str, Any]], factor: str = "0.999") -> list[bool]:
    return [claim[factor]["half"] for row in rows for claim in row["claims"].values()]


def test_overstated_certificates_are_broken(
    networks: Networks, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_certificates, "CONTROLS", ())
    monkeypatch.setattr(attack_certificates, "PROOF", 2000)
    overstate(networks, 4.0, monkeypatch)
    rows = [attack_image(networks, i, images[i], SMALL, 500, seed=1) for i in range(3)]
    assert sum(halves(rows)) >= 0.5 * len(halves(rows)) > 0


@pytest.mark.slow
def test_no_claim_of_the_shipped_bundle_is_broken(networks: Networks, images: np.ndarray) -> None:
    rows = [attack_image(networks, i, images[i], SMALL, 1000, seed=2) for i in range(10)]
    assert len(halves(rows)) >= 15
    assert not any(claim["0.999"]["changed"] for row in rows for claim in row["claims"].values())
    assert np.mean(halves(rows, "4")) > 0.5


def test_the_page_is_written_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack_certificates, "PROOF", 500)
    monkeypatch.setenv("DUALSMOOTH_DATA", str(shipped.fashion_mnist(tmp_path / "data")))
    results, out = tmp_path / "a.jsonl", tmp_path / "attacks.md"
    options = ["--passes", "200", "--steps", "2", "--samples", "2", "--toys", "3", "--results", str(results)]

    def run(images: int) -> str:
        monkeypatch.setattr(sys, "argv", ["attack", *options, "--images", str(images), "--out", str(out), "--force"])
        attack_certificates.main()
        return results.read_text()

    first = run(1)
    assert len(first.splitlines()) == 1
    second = run(2)
    assert second.startswith(first)
    assert [json.loads(line)["index"] for line in second.splitlines()] == [0, 64]
    assert "| decision | 0.999 of its radius |" in out.read_text()
    options[1] = "300"
    with pytest.raises(ds.InputError, match="other settings"):
        run(2)
