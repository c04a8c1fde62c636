"""Sure votes from the network to the certificate: real ONNX files whose share of sure votes has a closed form."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import toys
from scipy import special

import dualsmooth as ds
from dualsmooth.runtime.bundle.describing import describe, sentences
from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.engine.engine import unsure
from dualsmooth.runtime.errors import BundleError, CertificateError, InputError
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, Stream

SURE = 0.6
GAP = math.log(SURE / (1 - SURE))
"""How far t must be from the cut: the logits of the toys differ by t - cut."""
CUT, SIGMA = 0.1, 0.5
ABOVE = Stream(CLASSIFIER, 1, ESTIMATION)


def bundle(path: Path, sure: tuple[float, ...] = (SURE,), cuts: tuple[float, float] = (2.0, CUT)) -> Path:
    """Two levels; the small one says 0 here, the large one 1 from the cut on."""
    return toys.write_bundle(
        path, sigmas=(0.25, SIGMA), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=cuts, sure=sure
    )


def test_the_softmax_of_the_arg_max_decides() -> None:
    logits = np.array([[2.0, 1.0, 1.0], [5.0, 5.0, -9.0], [0.0, 60.0, 3.0]], np.float32)
    largest = special.softmax(logits.astype(np.float64), axis=1).max(1)
    for least in (0.3, 0.49, 0.51, 0.7, 0.999):
        assert unsure(logits, least).tolist() == (largest < least).tolist()


def test_votes_are_told_apart_where_the_closed_form_says(tmp_path: Path) -> None:
    with ds.load(bundle(tmp_path / "b")) as smoother:
        model, sigma = smoother.bundle.asked(ABOVE)
        t = np.array([-1, CUT - GAP - 1e-3, CUT - GAP + 1e-3, CUT + GAP - 1e-3, CUT + GAP + 1e-3, 1.5], np.float32)
        batch = np.zeros((6, 1, 1, 2), np.float32)
        batch[:, 0, 0, 0] = t
        assert smoother.engine.votes(model, batch, sigma, 2).tolist() == [0, 0, 2, 3, 1, 1]
        plain, _ = smoother.bundle.voter(ABOVE)
        assert smoother.engine.votes(plain, batch, sigma, 2).tolist() == [0, 0, 0, 1, 1, 1]


def test_an_ensemble_is_as_sure_as_the_mean_of_its_logits(tmp_path: Path) -> None:
    with ds.load(bundle(tmp_path / "b", cuts=(0.1, 0.5))) as smoother:
        both = BaseModel(("classifier_0.onnx", "classifier_1.onnx"), sure=SURE)  # logits differ by t - 0.3
        batch = np.zeros((3, 1, 1, 2), np.float32)
        batch[:, 0, 0, 0] = [0.3 - GAP - 1e-3, 0.3 + GAP - 1e-3, 0.3 + GAP + 1e-3]
        assert smoother.engine.votes(both, batch, SIGMA, 2).tolist() == [0, 3, 1]
        first = BaseModel(both.members, 1, SURE)  # the first member alone: t - 0.1
        assert smoother.engine.votes(first, batch, SIGMA, 2).tolist() == [2, 1, 1]


@pytest.mark.parametrize("budget", [ds.Fixed(5_000), ds.Adaptive(5_000)])
def test_radii_are_below_the_exact_one_and_near(tmp_path: Path, budget: ds.Budget) -> None:
    """The large level answers 1 where P(sure vote for 1) = Phi((t - cut - gap) / sigma) is at least .3; below that the
    small one answers 0."""
    t = 1.0
    with ds.load(bundle(tmp_path / "b")) as smoother:
        made = smoother.certify(toys.image(t, 0.0), rule="sure:0.3", budget=budget, alpha=0.01, seed=3)
        exact = (t - CUT - GAP) - SIGMA * float(special.ndtri(0.3))
        assert (made.label, made.sigma) == (1, SIGMA)
        assert exact - 0.08 < made.radius < exact
        share = made.tally.sure_counts(ABOVE)[1] / made.tally.passes(ABOVE)
        assert share == pytest.approx(float(special.ndtr((t - CUT - GAP) / SIGMA)), abs=0.03)
        assert ds.Certificate.from_json(made.to_json()) == made
        smoother.verify(made)
        smoother.replay(made, toys.image(t, 0.0))
        unsure_there = smoother.certify(toys.image(CUT, 0.0), rule="sure:0.5", budget=budget, alpha=0.01, seed=3)
        assert (unsure_there.label, unsure_there.sigma) == (0, 0.25)


def test_other_rules_do_not_see_which_votes_are_sure(tmp_path: Path) -> None:
    with ds.load(bundle(tmp_path / "b")) as smoother:
        drawn = smoother.certify(toys.image(1.0, 0.8), rule="interval", budget=ds.Fixed(500), alpha=0.01)
        assert not drawn.abstained
        assert drawn.tally.sure
        stated = drawn.to_dict()
        for name in [name for name in stated["votes"] if name.endswith("/sure")]:
            del stated["votes"][name]
        with pytest.raises(CertificateError, match=r"the sure votes of classifier/1/[a-z]+ are not told apart"):
            ds.Certificate.from_dict(stated)
        del stated["terms"]["sure"]
        assert ds.Certificate.from_dict(stated).outcome == drawn.outcome  # the same votes prove the same
        with pytest.raises(CertificateError, match="other noise levels or classes"):
            smoother.verify(ds.Certificate.from_dict(stated))


def test_sure_votes_that_no_sampling_gives_are_refused(tmp_path: Path) -> None:
    with ds.load(bundle(tmp_path / "b")) as smoother:
        stated = smoother.certify(toys.image(1.0, 0.0), rule="sure:0.3", budget=ds.Fixed(500), alpha=0.01).to_dict()
    name = "classifier/1/estimation/sure"
    for looks, said in (
        ([{"1": 501}], "counts more votes"),
        ([{"1": 3}, {"1": 4}], "must list 1 looks"),
        ([{"7": 3}], "counts class '7'"),
        ("x", "must list 1 looks"),
    ):
        changed = copy.deepcopy(stated)
        changed["votes"][name] = looks
        with pytest.raises(CertificateError, match=said):
            ds.Certificate.from_dict(changed)
    changed = copy.deepcopy(stated)
    changed["votes"][name] = [{"1": max(1, stated["votes"][name][0]["1"] - 1)}]
    with pytest.raises(CertificateError):  # other votes, other radius
        ds.Certificate.from_dict(changed)
    changed = copy.deepcopy(stated)
    changed["votes"]["classifier/1/prediction/sure"] = [{"1": 1}]
    with pytest.raises(CertificateError, match="of which there are no votes"):
        ds.Certificate.from_dict(changed)
    changed["terms"]["sure"] = [1.5]
    with pytest.raises(CertificateError):
        ds.Certificate.from_dict(changed)


@pytest.mark.parametrize(
    ("sure", "said"),
    [
        ([], "one number for each of the 1 levels above the smallest"),
        ([0.5, 0.6], "one number for each of the 1 levels above the smallest"),
        ([0.0], "between 0 and 1"),
        ([1], "between 0 and 1"),
        (["0.5"], "between 0 and 1"),
        ([True], "between 0 and 1"),
        (0.5, "between 0 and 1"),
        (None, "between 0 and 1"),
    ],
)
def test_a_manifest_that_says_it_wrongly_is_refused(tmp_path: Path, sure: object, said: str) -> None:
    path = bundle(tmp_path / "b")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"sure": sure}))
    with pytest.raises(BundleError, match=said):
        ds.read_bundle(path)


def test_a_bundle_is_described_with_what_makes_its_votes_sure(tmp_path: Path) -> None:
    facts = describe(ds.read_bundle(bundle(tmp_path / "b")))
    assert [level.get("sure") for level in facts["levels"]] == [None, SURE]
    assert "classifier_1.onnx, sure from 0.6" in sentences(facts)
    assert "sure" not in sentences(describe(ds.read_bundle(bundle(tmp_path / "c", sure=()))))


def test_it_is_not_derived_for_other_networks(tmp_path: Path) -> None:
    """Pairs of votes do not say which of them are sure."""
    image = toys.image(1.0, 0.0)
    with ds.load(bundle(tmp_path / "a")) as old, ds.load(bundle(tmp_path / "b", cuts=(2.0, 0.31))) as new:
        made = old.certify(image, rule="sure:0.3", budget=ds.Fixed(500), alpha=0.01)
        with pytest.raises(InputError, match=r"rule sure:0\.3"):
            ds.Deriver(old, new).derive(made, image)
        plain = old.certify(image, rule="interval", budget=ds.Fixed(2_000), alpha=0.01)
        assert ds.Deriver(old, new).derive(plain, image).radius <= plain.radius
    with (
        ds.load(tmp_path / "a") as old,
        ds.load(bundle(tmp_path / "c", sure=())) as new,
        pytest.raises(InputError, match="has sure"),
    ):
        ds.Deriver(old, new)
