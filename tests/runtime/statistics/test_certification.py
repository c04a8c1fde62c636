"""Certificates from real ONNX networks and real noise exceed the true radius no more often than alpha allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from scipy import stats

import dualsmooth as ds
from dualsmooth.runtime.statistics.certification import certification, checked_terms, settle
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import Stream, Tally

ALPHA = 0.05


@dataclass(frozen=True)
class Scene:
    """A toy bundle and an input of it; the name says what bounds the radius."""

    t: float
    u: float
    estimator_cuts: tuple[float, ...]
    classifier_cuts: tuple[float, ...]
    sigmas: tuple[float, ...] = (0.25, 0.5)
    sigma_e: float = 0.5
    label: int = 1
    kinds: tuple[str, ...] = field(default=("median", "mode"))

    def smoother(self, path: Path) -> ds.Smoother:
        toys.write_bundle(
            path,
            sigmas=self.sigmas,
            sigma_e=self.sigma_e,
            estimator_cuts=self.estimator_cuts,
            classifier_cuts=self.classifier_cuts,
        )
        return ds.load(path, batch_size=8192, threads=1)

    def true_radius(self, label: int, kind: str) -> float:
        return toys.true_radius(
            self.t,
            self.u,
            label,
            estimator_cuts=self.estimator_cuts,
            classifier_cuts=self.classifier_cuts,
            sigma_e=self.sigma_e,
            kind=kind,
        )


SCENES = {
    "class": Scene(0.6, 0.1, (0.9,), (0.4, 0.4)),
    "route": Scene(0.9, 0.3, (0.5,), (0.2, 2.0)),
    "corner": Scene(0.7, 0.3, (0.5,), (0.5, 1.0)),
    "middle of three": Scene(0.9, 0.5, (0.1, 0.9), (2.0, 0.3, 2.0), (0.25, 0.5, 1.0), 0.4),
    "undecided route": Scene(0.7, 0.5, (0.5,), (0.4, 0.45)),
    "undecided label": Scene(0.5, 0.2, (0.6,), (0.5 - 1e-3, 0.3)),
}
BUDGETS: dict[str, ds.Budget] = {
    "fixed": ds.Fixed(150, n0=20),
    "adaptive": ds.Adaptive(500, 0.1, n0=20),
    "at-radius": ds.AtRadius(0.22, 400, n0=20),
}


def failures(scene: Scene, smoother: ds.Smoother, count: int, kind: str = "median", **terms: Any) -> int:
    """How many of `count` certificates claim more than is true."""
    image = toys.image(scene.t, scene.u)
    truths = {label: scene.true_radius(label, kind) for label in (0, 1)}
    certificates = smoother.certify_many(repeat(image, count), alpha=ALPHA, seed=1234, in_flight=64, **terms)
    return sum(c.radius > truths[c.label] for c in certificates if c.label is not None)


def allowed(found: int, count: int, alpha: float = ALPHA) -> bool:
    """Whether so many failures are compatible with a rate of at most alpha (exact test at 1e-6)."""
    return bool(stats.binomtest(found, count, alpha, alternative="greater").pvalue > 1e-6)


def test_truth_of_the_toys() -> None:
    """The reference itself, on cases that can be seen on paper."""
    assert SCENES["class"].true_radius(1, "median") == pytest.approx(0.2)
    assert SCENES["route"].true_radius(1, "median") == pytest.approx(0.2)
    assert SCENES["corner"].true_radius(1, "median") == pytest.approx(0.2)
    assert SCENES["undecided route"].true_radius(1, "mode") == pytest.approx(0.25)
    assert SCENES["class"].true_radius(0, "median") == 0
    assert [level for *_, level in toys.route_intervals((0.4, 0.6), 0.5, "mode")] == [0, 2]
    (_, cut, _), *_ = toys.route_intervals((0.5,), 0.5, "mode")
    assert cut == pytest.approx(0.5)


@pytest.mark.parametrize("rule", ["interval", "paper"])
@pytest.mark.parametrize("scene", ["class", "route"])
def test_true_radius_is_rarely_exceeded(tmp_path: Path, scene: str, rule: str) -> None:
    found = failures(SCENES[scene], SCENES[scene].smoother(tmp_path / "b"), 300, rule=rule, budget=BUDGETS["fixed"])
    assert allowed(found, 300)


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", ["median", "mode"])
@pytest.mark.parametrize("rule", ["interval", "paper"])
@pytest.mark.parametrize("scene", SCENES)
def test_true_radius_is_rarely_exceeded_in_any_combination(
    tmp_path: Path, scene: str, rule: str, kind: str, budget: str
) -> None:
    smoother, count = SCENES[scene].smoother(tmp_path / "b"), {"fixed": 1000, "adaptive": 400, "at-radius": 200}[budget]
    found = failures(SCENES[scene], smoother, count, kind, rule=rule, route=kind, budget=BUDGETS[budget])
    assert allowed(found, count)


@pytest.mark.parametrize("budget", ["fixed", "adaptive", "at-radius"])
def test_single_sigma_uses_its_alpha(tmp_path: Path, budget: str) -> None:
    """With one claim the failures must be rare, yet visible: this suite would notice a radius 5 % too large."""
    scene = SCENES["class"]
    smoother, image = scene.smoother(tmp_path / "b"), toys.image(scene.t, scene.u)
    count = 1000 if budget == "fixed" else 200
    certificates = smoother.certify_many(
        repeat(image, count), alpha=ALPHA, seed=7, in_flight=64, rule="single:0.25", budget=BUDGETS[budget]
    )
    radii = [c.radius for c in certificates]
    assert allowed(sum(r > 0.2 for r in radii), count)
    if budget == "fixed":
        assert sum(r > 0.2 for r in radii) > count * ALPHA / 4
        assert not allowed(sum(r * 1.2 > 0.2 for r in radii), count)


TERMS: dict[str, Any] = {"alpha": ALPHA, "rule": "interval", "seed": 3}


def test_what_the_votes_prove_is_what_was_certified(tmp_path: Path) -> None:
    """`settle` on the counts alone gives the outcome; a bound that fails leaves radius 0 and no label."""
    scene = SCENES["middle of three"]
    for budget in BUDGETS.values():
        certificate = scene.smoother(tmp_path / str(budget).replace(":", "-")).certify(
            toys.image(scene.t, scene.u), budget=budget, **TERMS
        )
        assert settle(certificate.terms, certificate.tally) == certificate.outcome


def test_no_vote_is_used_for_both_guess_and_bound(tmp_path: Path) -> None:
    """Selection votes decide route and label whatever the bounded votes say; only the latter move the radius."""
    terms = toy_terms(ds.Fixed(100, n0=10))
    tally = toy_tally(terms, route=[10, 0], label=[1, 9], estimator=[95, 5], classifier=[2, 98])
    outcome = settle(terms, tally)
    assert (outcome.route, outcome.guess, outcome.label) == (0, 1, 1)
    for label, expected in (([9, 1], 0), ([1, 9], 1)):
        against = toy_tally(terms, route=[10, 0], label=label, estimator=[95, 5], classifier=[98, 2])
        assert settle(terms, against).guess == expected
    more = toy_tally(terms, route=[6, 4], label=[4, 6], estimator=[95, 5], classifier=[2, 98])
    assert settle(terms, more) == outcome


def test_an_interval_certificate_by_hand() -> None:
    """Three levels, guessed route 1, votes spread over all: the formulas of the design, written out."""
    sigmas, sigma_e, alpha, n = (0.25, 0.5, 1.0), 0.8, 0.01, 1000
    terms = checked_terms(sigmas, sigma_e, 2, alpha=alpha, rule="interval", route=None, budget=ds.Fixed(n, n0=10))
    votes = {
        ("estimator", 0, "selection"): [1, 8, 1],
        ("estimator", 0, "estimation"): [100, 700, 200],
        ("classifier", 1, "selection"): [1, 9],
        ("classifier", 1, "estimation"): [20, 980],
        ("classifier", 2, "estimation"): [150, 850],
    }
    tally = terms.tally()
    for name, counts in votes.items():
        tally.record(Stream(*name), np.array(counts))

    def quantile(hits: int, share: float) -> float:
        return float(stats.norm.ppf(stats.beta.ppf(alpha * share, hits, n - hits + 1)))

    # level 0 is excluded by {1,2}, level 2 by {0,1}, with 80 % of alpha each; the route's level has all for its label
    excluded = [sigma_e * quantile(900, 0.8), 0.0, sigma_e * quantile(800, 0.8)]
    labels = [0.0, sigmas[1] * quantile(980, 1.0), sigmas[2] * quantile(850, 0.2)]
    expected = min(max(e, a) for e, a in zip(excluded, labels, strict=True))
    outcome = settle(terms, tally)
    assert (outcome.route, outcome.label) == (1, 1)
    assert outcome.exclusion == pytest.approx(excluded, abs=2e-6)
    assert outcome.class_radii == pytest.approx(labels, abs=2e-6)
    assert 0 <= expected - outcome.radius < 2e-6


def toy_terms(budget: ds.Budget, rule: str = "interval") -> Terms:
    return checked_terms((0.25, 0.5), 0.5, 2, alpha=0.01, rule=rule, route=None, budget=budget)


def toy_tally(
    terms: Terms, *, route: list[int], label: list[int], estimator: list[int], classifier: list[int]
) -> Tally:
    tally = terms.tally()
    for stream, counts in (
        (Stream("estimator", 0, "selection"), route),
        (Stream("classifier", 0, "selection"), label),
        (Stream("estimator", 0, "estimation"), estimator),
        (Stream("classifier", 0, "estimation"), classifier),
    ):
        tally.record(stream, np.array(counts))
    return tally


def test_votes_beside_the_budget_are_refused() -> None:
    """A look that the budget does not fix in advance proves nothing at that alpha."""
    terms = toy_terms(ds.Fixed(100, n0=10))
    for counts in ([50, 49], [51, 50]):
        with pytest.raises(ds.CertificateError, match="look 0"):
            settle(terms, toy_tally(terms, route=[9, 1], label=[1, 9], estimator=counts, classifier=[2, 98]))
    tally = toy_tally(terms, route=[9, 1], label=[1, 9], estimator=[95, 5], classifier=[2, 98])
    tally.record(Stream("classifier", 0, "estimation"), np.array([4, 196]))
    with pytest.raises(ds.CertificateError, match="more looks"):
        settle(terms, tally)


def test_missing_selection_votes_are_refused() -> None:
    with pytest.raises(ds.CertificateError, match="selection votes"):
        settle(toy_terms(ds.Fixed(100)), toy_terms(ds.Fixed(100)).tally())


def fulfil(terms: Terms, votes: dict[str, list[float]], **options: bool) -> Tally:
    """Answer all requests with expected counts: shares of votes per `stage/level`."""
    tally = terms.tally()
    for requests in certification(terms, tally, **options):
        for stream, until in requests:
            shares = np.array(votes[f"{stream.stage}/{stream.level}"])
            counts = np.floor(shares * until).astype(np.int64)
            counts[np.argmax(shares)] += until - counts.sum()
            tally.record(stream, counts)
    return tally


CLEAR = {"estimator/0": [0.999, 0.001], "classifier/0": [0.1, 0.9], "classifier/1": [0.1, 0.9]}
TORN = {"estimator/0": [0.52, 0.48], "classifier/0": [0.1, 0.9], "classifier/1": [0.1, 0.9]}
LEVEL_1 = Stream("classifier", 1, "estimation")


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=str)
def test_another_level_is_sampled_only_where_the_route_bounds_the_radius(budget: ds.Budget) -> None:
    assert LEVEL_1 not in fulfil(toy_terms(budget), CLEAR).looks
    assert LEVEL_1 in fulfil(toy_terms(budget), TORN).looks
    assert LEVEL_1 not in fulfil(toy_terms(budget, "paper"), TORN).looks


def test_all_levels_draws_every_stream_in_full() -> None:
    for budget in BUDGETS.values():
        tally = fulfil(toy_terms(budget), CLEAR, all_levels=True)
        streams = {(s.stage, s.level, s.purpose) for s in tally.looks}
        both = ("selection", "estimation")
        assert streams == {("estimator", 0, p) for p in both} | {("classifier", s, p) for s in (0, 1) for p in both}
        assert all(len(looks) == len(budget.looks) for s, looks in tally.looks.items() if s.purpose == "estimation")


def test_adaptive_stops_the_stage_that_does_not_bound() -> None:
    tally = fulfil(toy_terms(ds.Adaptive(10_000)), CLEAR)
    assert tally.passes(Stream("classifier", 0, "estimation")) == 10_000
    assert tally.passes(Stream("estimator", 0, "estimation")) < 2_000


def test_at_radius_stops_when_it_is_settled() -> None:
    easy, hopeless = (fulfil(toy_terms(ds.AtRadius(r, 10_000)), CLEAR) for r in (0.1, 3.0))
    assert easy.total() < 1_000
    assert hopeless.total() < 300
    assert settle(toy_terms(ds.AtRadius(0.1, 10_000)), easy).radius >= 0.1


@pytest.mark.parametrize("alpha", [0, -0.1, 0.2, 1, float("nan"), "0.01", None, True])
def test_unusable_alpha_is_refused(alpha: Any) -> None:
    with pytest.raises(ds.InputError, match="expected 0 < alpha"):
        checked_terms((0.25, 0.5), 0.5, 2, alpha=alpha, rule="interval", route=None, budget=ds.Fixed(10))


def test_unusable_budgets_are_refused() -> None:
    for budget in (10_000, "fixed:100", None):
        with pytest.raises(ds.InputError, match="expected Fixed"):
            toy_terms(budget)  # type: ignore[arg-type]
    with pytest.raises(ds.InputError, match="multiscale"):
        toy_terms(ds.Adaptive(1000), "multiscale")
