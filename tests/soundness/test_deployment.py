"""Known wrong practices around the networks: each is shown to overstate, or is refused."""

from __future__ import annotations

import json
import warnings
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import toys
from onnx import helper
from scipy import special

import dualsmooth as ds
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.votes import Stream

FIXED = ds.Fixed(400, n0=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle whose router sends (0, 0.3) to level 0, by 99.97 % of its votes: that classifier is always asked."""
    return toys.two_levels(tmp_path / "b", estimator_cut=2.0, classifier_cuts=(0.2, 0.2))


def test_noise_after_normalisation() -> None:
    """A network for inputs (x - 0.5) / 0.25, noised there with sigma: its true radius in pixels is 4 times smaller."""
    mean, std, sigma, cut, pixel = 0.5, 0.25, 0.5, 0.3, 0.6
    p = special.ndtr(((pixel - mean) / std - (cut - mean) / std) / sigma)  # noise on the normalised input
    claimed = sigma * special.ndtri(p)
    true = pixel - cut
    assert claimed == pytest.approx(true / std)
    assert claimed > 3.9 * true


def test_normalised_inputs_are_refused(path: Path) -> None:
    smoother = ds.load(path, threads=1)
    normalised = (toys.image(0.9, 0.3) - 0.5) / 0.25
    for image in (normalised, (normalised * 10).astype(np.float32), toys.image(0.9, 0.3) * 255):
        with pytest.raises(ds.InputError, match=r"\[0, 1\]"):
            smoother.certify(image)


def test_bundles_that_expect_normalised_inputs_are_refused(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["input"]["range"] = [-1, 1]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ds.BundleError, match="normalisation belongs inside the graph"):
        ds.load(path)


def test_onnx_runtime_falls_back_silently_and_we_do_not(path: Path) -> None:
    """The session below was asked for CUDA only. Where there is none it runs on the CPU, and says so if asked."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs an engine without CUDA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = onnxruntime.InferenceSession(str(path / "estimator.onnx"), providers=["CUDAExecutionProvider"])
        assert session.get_providers() == ["CPUExecutionProvider"]
        with pytest.raises(ds.ProviderError, match="cuda"):
            ds.load(path, provider="cuda")


BATCHES = 5


def breaking(engine: Any, name: str, how: Any) -> None:
    """Let one network of an engine misbehave from its sixth batch on."""
    session, calls = engine._sessions[name], 0

    def run(outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
        nonlocal calls
        calls += 1
        (logits,) = session.run(outputs, feed)
        return [logits] if calls <= BATCHES else how(logits)

    engine._sessions[name] = SimpleNamespace(run=run, get_providers=session.get_providers)


def raises(logits: np.ndarray) -> Any:
    raise RuntimeError("CUDA out of\nmemory")


def one_nan(logits: np.ndarray) -> Any:
    logits[len(logits) // 2, 1] = np.nan
    return [logits]


def all_infinite(logits: np.ndarray) -> Any:
    return [np.full_like(logits, -np.inf)]


FAILURES = {
    "raises": raises,
    "one NaN": one_nan,
    "infinite": all_infinite,
    "row lost": lambda logits: [logits[1:]],
    "column lost": lambda logits: [logits[:, :1]],
    "flat": lambda logits: [logits.ravel()],
    "nothing": lambda logits: [],
    "none": lambda logits: [None],
}


@pytest.mark.parametrize("name", ["estimator.onnx", "classifier_0.onnx"])
@pytest.mark.parametrize("failure", FAILURES)
def test_zeros_on_error(path: Path, failure: str, name: str) -> None:
    """Zeros in place of a failed batch vote for class 0. Here the certificate is lost instead."""
    smoother = ds.load(path, threads=1, batch_size=64)
    breaking(smoother.engine, name, FAILURES[failure])
    done: list[ds.Certificate] = []
    with pytest.raises(ds.EngineError, match=name) as caught:
        done.extend(smoother.certify_many(repeat(toys.image(0.0, 0.3), 3), budget=FIXED, in_flight=1))
    assert done == []
    assert "\n" not in str(caught.value)
    with pytest.raises(ds.EngineError):
        smoother.predict(toys.image(0.0, 0.3))


def test_what_zeros_on_error_would_have_done() -> None:
    """Half of 1,000 votes lost, and counted for class 0: a class of probability 0.2 is certified."""
    votes = np.zeros((1000, 2))
    votes[:500, 1] = np.where(np.arange(500) % 5 > 0, 1.0, -1.0)
    assert lower_bound((votes.argmax(1) == 0).sum(), 1000, 1e-3) > 0.5


def noise_of(
    seed: Seed, stage: str = "classifier", level: int = 0, purpose: str = "estimation", out: np.ndarray | None = None
) -> np.ndarray:
    out = np.empty(1000) if out is None else out
    seed.generator(Stream(stage, level, purpose)).standard_normal(dtype=out.dtype, out=out)
    return out


def test_the_same_noise_in_both_stages() -> None:
    """With one seed for both stages the guess and its bound, or route and label, would see the same draws."""
    seed = Seed(1)
    naive = [np.random.default_rng(seed.entropy).standard_normal(1000) for _ in range(2)]
    assert np.array_equal(*naive)
    for a, b in (
        (("estimator", 0, "estimation"), ("classifier", 0, "estimation")),
        (("classifier", 0, "selection"), ("classifier", 0, "estimation")),
        (("classifier", 0, "estimation"), ("classifier", 1, "estimation")),
        (("classifier", 0, "prediction"), ("classifier", 0, "estimation")),
    ):
        assert abs(np.corrcoef(noise_of(seed, *a), noise_of(seed, *b))[0, 1]) < 0.2
        assert not np.isin(noise_of(seed, *a), noise_of(seed, *b)).any()


def test_noise_inside_the_graph_repeats() -> None:
    """ONNX Runtime's RandomNormalLike: two sessions of one seed draw the same noise. Ours comes from outside."""
    graph = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["x"], ["z"], seed=1.0), helper.make_node("Add", ["x", "z"], ["y"])],
        "noisy",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feed = {"x": np.zeros(1000, np.float32)}
    draws = [onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0] for _ in range(2)]
    assert np.array_equal(*draws)
    ours = [noise_of(Seed.make(None)) for _ in range(2)]
    assert not np.isin(*ours).any()


def test_a_generator_of_short_period_does_not_repeat_here() -> None:
    """A 31-bit generator has returned to old states long before this; 2^21 draws of ours hold no repeated pair."""
    pairs = noise_of(Seed(3), out=np.empty(1 << 21, np.float32)).view(np.uint64)
    assert len(np.unique(pairs)) == len(pairs)


def test_stating_other_noise_levels(path: Path) -> None:
    """Votes drawn at sigma, radius computed with 2 sigma: follows from its own counts, but not from the bundle."""
    smoother = ds.load(path, threads=1)
    data = json.loads(smoother.certify(toys.image(0.6, 0.1), rule="single:0.25", budget=FIXED).to_json())
    data["terms"].update(sigmas=[0.5, 1.0], rule="single:0.5")
    data["subject"] = "the classifier smoothed at sigma 0.5"
    for name in ("radius", "sigma", "class_radius"):
        data[name] *= 2
    data["class_radii"] = [2 * radius for radius in data["class_radii"]]
    forged = ds.Certificate.from_dict(data)
    assert forged.radius > 0.4  # the truth
    for check in (smoother.verify, lambda c: smoother.replay(c, toys.image(0.6, 0.1))):
        with pytest.raises(ds.CertificateError, match="other noise levels"):
            check(forged)
