"""Prediction: the label is wrong with probability at most alpha."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import toys
from scipy import stats

import dualsmooth as ds
from dualsmooth.runtime.statistics.prediction import candidates, predicted, prediction
from dualsmooth.runtime.statistics.routes import quantile_of
from dualsmooth.runtime.statistics.votes import Stream, Tally

ROUTER, ALPHA, N = Stream("estimator", 0, "prediction"), 0.05, 40


def tally(estimator: list[int], *classifiers: list[int]) -> Tally:
    made = Tally(len(classifiers[0]) if classifiers else 2, len(estimator))
    made.record(ROUTER, np.array(estimator))
    for level, counts in enumerate(classifiers):
        made.record(Stream("classifier", level, "prediction"), np.array(counts))
    return made


@pytest.mark.parametrize("route", ["median", "mode", "quantile:0.3"])
def test_router_keeps_the_true_route_exactly(route: str) -> None:
    """Exact, over all votes of three levels: the true route is dropped with probability at most alpha / 2."""
    splits = [(a, b, N - a - b) for a, b in product(range(N + 1), repeat=2) if a + b <= N]
    kept = {split: candidates(tally(list(split)), levels=3, alpha=ALPHA, route=route) for split in splits}
    for p in (
        [0.3001, 0.3998, 0.3001],
        [0.5001, 0.2999, 0.2],
        [0.49, 0.31, 0.2],
        [0.35, 0.34, 0.31],
        [0.2, 0.301, 0.499],
        [0.1, 0.8, 0.1],
    ):
        true = int(np.argmax(p)) if route == "mode" else int((np.cumsum(p) >= quantile_of(route)).argmax())
        weights = stats.multinomial.pmf(splits, N, p)
        wrong = sum(w for w, split in zip(weights, splits, strict=True) if kept[split] and true not in kept[split])
        assert wrong <= ALPHA / 2


@pytest.mark.parametrize("p", [0.5 - 1e-9, 0.4, 0.3])
def test_label_is_wrong_with_probability_at_most_alpha(p: float) -> None:
    """Exact, for one level: class 1 has probability p < 1/2, and is returned with probability at most alpha."""
    wrong = 0.0
    for k in range(N + 1):
        votes = Tally(2, 1)
        votes.record(Stream("classifier", 0, "prediction"), np.array([N - k, k]))
        if predicted(votes, levels=1, alpha=ALPHA, route="median")[0] == 1:
            wrong += stats.binom.pmf(k, N, p)
    assert wrong <= ALPHA
    if p > 0.49:
        assert wrong > ALPHA / 5


def test_levels_that_disagree_abstain() -> None:
    torn = [30, 30]
    assert predicted(tally(torn, [60, 0], [60, 0]), levels=2, alpha=ALPHA, route="median") == (0, [0, 1])
    assert predicted(tally(torn, [60, 0], [0, 60]), levels=2, alpha=ALPHA, route="median") == (None, [0, 1])
    assert predicted(tally(torn, [60, 0], [31, 29]), levels=2, alpha=ALPHA, route="median") == (None, [0, 1])
    assert predicted(tally([60, 0], [60, 0], [0, 60]), levels=2, alpha=ALPHA, route="median") == (0, [0])
    assert predicted(tally(torn, [60, 0], [60, 0]), levels=2, alpha=ALPHA, route="mode") == (None, [])


def test_only_levels_that_remain_are_sampled() -> None:
    for estimator, expected in (([40, 0, 0], [0]), ([20, 20, 0], [0, 1]), ([13, 14, 13], [0, 1, 2]), ([0, 0, 40], [2])):
        made = Tally(2, 3)
        process = prediction(made, levels=3, alpha=ALPHA, n=N, route="median")
        assert next(process) == [(ROUTER, N)]
        made.record(ROUTER, np.array(estimator))
        assert [request.stream.level for request in next(process)] == expected


@pytest.mark.parametrize("rule", ["interval", "paper"])
def test_predictions_of_real_networks_are_rarely_wrong(tmp_path: Path, rule: str) -> None:
    """Just above the cut at the true route, on the wrong side of it at the other: about half of a coin each."""
    toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.49, 0.9]
    )
    smoother, wrong, count = ds.load(tmp_path / "b", threads=1), 0, 200
    image = toys.image(0.5, 0.49)
    for i in range(count):
        made = smoother.predict(image, alpha=ALPHA, n=100, rule=rule, seed=i)
        assert made.abstained == (made.label is None)
        wrong += made.label == 0
    assert stats.binomtest(wrong, count, ALPHA, alternative="greater").pvalue > 1e-6


def test_predictions_of_clear_inputs(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "b", sigmas=(0.1, 0.2), sigma_e=0.1, estimator_cuts=[0.5], classifier_cuts=[0.5, 0.5])
    smoother = ds.load(tmp_path / "b", threads=1)
    for t, u, label, sigma in ((1.0, 0.0, 1, 0.1), (0.0, 0.0, 0, 0.1), (1.0, 1.0, 1, 0.2)):
        made = smoother.predict(toys.image(t, u), n=200)
        assert (made.label, made.sigma, made.levels, made.passes) == (label, sigma, (sigma,), 400)
    with pytest.raises(ds.InputError, match="does not predict"):
        smoother.predict(toys.image(0, 0), rule="multiscale")
    with pytest.raises(ds.InputError, match="n is 0"):
        smoother.predict(toys.image(0, 0), n=0)
