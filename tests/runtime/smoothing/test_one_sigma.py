"""Bundles of one noise level and no router: Cohen's certificates, by the same tools, against closed forms.

The classifier is a half-space: it votes 1 where t >= CUT, so that under noise P(vote = 1) = Phi((t - CUT) / sigma) and
the true radius of its smoothed label is |t - CUT|.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import toys
from scipy import stats

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.serving.repository import fill_repository
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, SELECTION, Stream

SIGMA, CUT = 0.5, 0.25
BUDGET = ds.Fixed(2_000, n0=100)
BOUNDED = Stream(CLASSIFIER, 0, ESTIMATION)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write_bundle(tmp_path_factory.mktemp("one") / "bundle", sigmas=(SIGMA,), classifier_cuts=[CUT])


@pytest.fixture(scope="module")
def smoother(bundle: Path) -> ds.Smoother:
    return ds.load(bundle, threads=1)


def cohens_radius(hits: int, n: int, alpha: float) -> float:
    """sigma Phi^-1(p), with p as `proportion_confint(hits, n, alpha=2 * alpha, method="beta")[0]` of Cohen et al. gives
    it: here by SciPy's own exact interval."""
    low = stats.binomtest(hits, n).proportion_ci(confidence_level=1 - 2 * alpha, method="exact").low
    return SIGMA * float(stats.norm.ppf(low))


def test_a_certificate_is_cohens(smoother: ds.Smoother) -> None:
    certificate = smoother.certify(toys.image(0.8, 0.1), budget=BUDGET, seed=3)
    hits = int(certificate.tally.counts(BOUNDED)[1])
    assert 0 < certificate.radius <= cohens_radius(hits, 2_000, 1e-3) < certificate.radius + 1e-6
    assert certificate.radius < 0.8 - CUT  # the true one
    expected = 2_000 * stats.norm.cdf((0.8 - CUT) / SIGMA)
    assert abs(hits - expected) < 5 * math.sqrt(expected * (1 - expected / 2_000))


def test_votes_that_agree_give_the_most_that_n_passes_can_prove(smoother: ds.Smoother) -> None:
    """p >= alpha^(1/n), in closed form."""
    wide = dataclasses.replace(smoother.bundle, sigmas=(0.01,))
    certificate = ds.Smoother(wide, smoother.engine).certify(toys.image(0.9, 0.5), budget=BUDGET)
    assert certificate.tally.counts(BOUNDED).tolist() == [0, 2_000]
    assert certificate.radius == pytest.approx(0.01 * stats.norm.ppf(1e-3 ** (1 / 2_000)), abs=1e-6)


def test_more_classes_spend_a_tenth_of_alpha_on_the_rival(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "b", sigmas=(SIGMA,), classifier_cuts=[[0.2, 0.4]])
    certificate = ds.load(tmp_path / "b", threads=1).certify(toys.image(0.9, 0.5), budget=BUDGET, seed=1)
    counts = certificate.tally.counts(BOUNDED)
    alone = cohens_radius(int(counts[2]), 2_000, 0.9e-3)
    rival = int(2_000 - np.delete(counts, 2).max())
    pair = (alone + cohens_radius(rival, 2_000, 0.1e-3)) / 2
    assert certificate.radius == pytest.approx(max(alone, pair), abs=1e-6)


def test_how_often_a_radius_is_too_large_exactly() -> None:
    """By the binomial law of the votes, over many half-spaces: at most alpha, and not far from it at the worst."""
    alpha, n = 0.1, 40
    terms = checked_terms((SIGMA,), None, 2, alpha=alpha, rule="interval", route=None, budget=ds.Fixed(n, n0=1))
    radii = []
    for hits in range(n + 1):
        tally = terms.tally()
        tally.record(Stream(CLASSIFIER, 0, SELECTION), np.array([0, 1]))
        tally.record(BOUNDED, np.array([n - hits, hits]))
        radii.append(settle(terms, tally).radius)
    errors = []
    for p in np.linspace(0.5, 0.99, 200):
        true = SIGMA * stats.norm.ppf(p)
        errors.append(sum(stats.binom.pmf(k, n, p) for k, radius in enumerate(radii) if radius > true))
    assert 0.05 < max(errors) <= alpha


def test_a_certificate_says_that_there_is_no_router(smoother: ds.Smoother) -> None:
    certificate = smoother.certify(toys.image(0.8, 0.1), budget=BUDGET, seed=3)
    said = json.loads(certificate.to_json())
    assert said["terms"] == {
        "rule": "single:0.5", "route": "none", "budget": "fixed:2000", "sigmas": [0.5], "sigma_e": None,
        "classes": 2,
    }  # fmt: skip
    assert said["subject"] == "the classifier smoothed at sigma 0.5"
    assert (said["route_radius"], certificate.route_radius) == (None, math.inf)
    assert said["class_radius"] == said["radius"]
    assert list(said["votes"]) == ["classifier/0/estimation", "classifier/0/selection"]
    assert said["passes"] == 2_100
    assert ds.Certificate.from_json(certificate.to_json()) == certificate


def test_rules_about_routers_come_to_the_same(smoother: ds.Smoother) -> None:
    found = {
        rule: smoother.certify(toys.image(0.8, 0.1), budget=BUDGET, seed=3, rule=rule).to_json()
        for rule in ("interval", "paper", "single:0.5")
    }
    assert len(set(found.values())) == 1
    every = next(smoother.certify_many([toys.image(0.8, 0.1)], budget=BUDGET, seed=3, all_levels=True))
    assert every.to_json() == found["interval"]
    assert smoother.certify(toys.image(0.8, 0.1), budget=BUDGET, rule="multiscale").radius > 0
    for route in ("median", "mode", "quantile:0.7"):
        with pytest.raises(ds.InputError, match=f"route '{route}' of a bundle with one noise level and no router"):
            smoother.certify(toys.image(0.8, 0.1), route=route)
    with pytest.raises(ds.InputError, match=r"names a sigma that the bundle lacks; expected one of 0\.5"):
        smoother.certify(toys.image(0.8, 0.1), rule="single:1")


def test_all_of_alpha_is_the_predictions(smoother: ds.Smoother) -> None:
    """Cohen's PREDICT: votes that agree are enough where 2 * 2^-n <= alpha."""
    certain = toys.image(1.0, 0.5)
    wide = ds.Smoother(dataclasses.replace(smoother.bundle, sigmas=(0.01,)), smoother.engine)
    assert wide.predict(certain, n=11).label == 1
    with pytest.raises(ds.InputError, match="expected n of at least 11"):
        wide.predict(certain, n=10)
    assert 2 * 0.5**11 <= 1e-3 < 2 * 0.5**10
    found = smoother.predict(toys.image(0.8, 0.1), n=500)
    assert (found.label, found.sigma, found.levels, found.route, found.passes) == (1, 0.5, (0.5,), "none", 500)


def test_a_certificate_of_another_kind_of_bundle_is_refused(smoother: ds.Smoother, tmp_path: Path) -> None:
    certificate = smoother.certify(toys.image(0.8, 0.1), budget=BUDGET, seed=3)
    smoother.verify(certificate)
    smoother.replay(certificate, toys.image(0.8, 0.1))
    changes = {
        "sigma_e must be there where": {"sigmas": [0.5, 1.0]},
        "terms.classes must be an integer": {"sigma_e": 0},
        "is stated as|the votes give": {"rule": "interval"},
        "terms are not usable: route 'median' of a bundle": {"route": "median"},
    }
    for message, change in changes.items():
        said = json.loads(certificate.to_json())
        said["terms"] |= change
        with pytest.raises(ds.CertificateError, match=message):
            ds.Certificate.from_dict(said)
    said = json.loads(certificate.to_json())
    said["votes"]["estimator/0/selection"] = [{"0": 100}]
    said["passes"] += 100
    with pytest.raises(ds.CertificateError, match="there are votes of an estimator, but no sigma_e"):
        ds.Certificate.from_dict(said)
    routed = toys.write_bundle(tmp_path / "b", sigmas=(0.5,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[CUT])
    with pytest.raises(ds.CertificateError, match="is about other files"):
        ds.load(routed, threads=1).verify(certificate)


def test_a_bundle_with_a_router_of_one_level_is_what_it_was(tmp_path: Path) -> None:
    routed = toys.write_bundle(tmp_path / "b", sigmas=(0.5,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[CUT])
    certificate = ds.load(routed, threads=1).certify(toys.image(0.8, 0.1), budget=BUDGET, seed=3)
    assert (str(certificate.terms.rule), certificate.terms.route_kind) == ("interval", "median")
    assert json.loads(certificate.to_json())["terms"]["sigma_e"] == 0.5


def test_evaluate_and_report_and_plan(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((4, 1, 1, 2), np.uint8)
    images[:, 0, 0, 0] = (0, 20, 200, 255)
    smoother = ds.load(bundle, threads=1)
    data = Dataset("toy", images, np.array([0, 0, 1, 0]), ("class 0", "class 1"))
    out = tmp_path / "r.jsonl"
    evaluate(smoother, data, out, indices=range(4), budget=BUDGET, all_levels=True)
    found = load_results(out)
    assert [str(r.certificate.terms.rule) for r in found] == ["single:0.5"] * 4
    assert [r.correct_radius > 0 for r in found] == [True, True, True, False]
    assert set(ds.read_results(out)["route_radius"].tolist()) == {math.inf}
    page = tmp_path / "page.html"
    assert main(["report", str(out), "--rule", "single", "--rule", "oracle", "--out", str(page)]) == 0
    assert "single:0.5, no router" in page.read_text()
    assert main(["plan", str(out)]) == 0
    assert main(["plan", str(out), "--images", "100"]) == 0
    assert main(["report", str(out), "--rule", "frontier"]) == 2
    assert "no router; leave it out" in capsys.readouterr().err


def test_the_other_commands(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "i.npy", np.array([[[200, 0]]], np.uint8))
    image, paper = str(tmp_path / "i.npy"), tmp_path / "c.json"
    assert main(["certify", str(bundle), image, "--budget", "fixed:500", "--json"]) == 0
    paper.write_text(capsys.readouterr().out)
    checks = ["--bundle", str(bundle), "--replay", image, "--strict"]
    assert main(["verify", str(paper), *checks]) == 0
    assert "replayed votes are identical" in capsys.readouterr().out
    assert main(["certify", str(bundle), image, "--budget", "fixed:500"]) == 0
    assert "(sigma 0.5, no router, 600 passes, confidence 0.999, table noise)" in capsys.readouterr().out
    assert main(["predict", str(bundle), image, "--route", "mode"]) == 2
    assert "no router" in capsys.readouterr().err
    assert main(["predict", str(bundle), image]) == 0
    assert main(["inspect", str(bundle)]) == 0
    assert "estimator  none: one noise level, no router" in capsys.readouterr().out
    assert main(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimator"] is None
    assert main(["bench", str(bundle), "--seconds", "0.05", "--turns", "1", "--batch-size", "16"]) == 0


def test_a_model_repository_has_no_estimator(bundle: Path, tmp_path: Path) -> None:
    assert fill_repository(bundle, tmp_path / "r") == ["classifier", "dual_smoothing", "dual_smoothing_stream"]
