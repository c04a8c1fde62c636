from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm

from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream, Tally
from dualsmooth.training import Config
from dualsmooth.training.data import load_training_data
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.stages.estimator import (
    certified_share,
    estimator_lesson,
    expected_share,
    hard_labels,
    interval_radii,
    level_weights,
    regret_weights,
    soft_labels,
    utilities,
)


def test_soft_labels_are_a_softmax_and_do_not_overflow() -> None:
    radii = np.array([[0.0, 0.0, 0.0], [0.3, 0.7, 0.0]])
    targets = soft_labels(radii, 0.1)
    np.testing.assert_allclose(targets[0], 1 / 3)
    expected = np.exp([3.0, 7.0, 0.0])
    np.testing.assert_allclose(targets[1], expected / expected.sum())
    np.testing.assert_allclose(soft_labels(radii, 1e-6)[1], [0, 1, 0])


def test_level_weights_balance_the_levels() -> None:
    targets = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    weights = level_weights(targets, 1.0)
    assert weights[0] * 9 == pytest.approx(weights[1])
    assert float((targets @ weights).mean()) == pytest.approx(1.0)
    np.testing.assert_allclose(level_weights(targets, 0.0), 1.0)
    assert np.isfinite(level_weights(np.array([[1.0, 0.0]]), 0.5)).all()


def test_utility_is_the_radius_and_something_for_being_certified_at_all() -> None:
    radii = np.array([[0.0, 0.05, 0.1, 2.0]])
    np.testing.assert_array_equal(utilities(radii, 0.0), radii)
    np.testing.assert_allclose(utilities(radii, 0.5)[0, [0, 2]], [0.0, 0.1 + 0.5 * (1 - np.exp(-1))])
    assert utilities(radii, 0.5)[0, 3] == pytest.approx(2.5, abs=1e-6)


def test_hard_labels_are_the_best_level_or_nothing_in_particular() -> None:
    np.testing.assert_array_equal(hard_labels(np.array([[0.1, 0.4], [0.0, 0.0]])), [[0.0, 1.0], [0.5, 0.5]])


def test_images_whose_level_does_not_matter_do_not_count() -> None:
    utility = np.array([[1.0, 1.0], [0.5, 1.5], [0.0, 3.0]])
    np.testing.assert_allclose(regret_weights(utility, 1.0), [0.0, 0.75, 2.25])
    np.testing.assert_allclose(regret_weights(utility, 0.0), 1.0)
    assert np.isfinite(regret_weights(np.ones((3, 2)), 1.0)).all()


def test_the_interval_term_is_the_rule_that_certifies() -> None:
    """Against the runtime's own rule, with so many votes that its bounds are the probabilities."""
    generator = np.random.default_rng(4)
    levels, classes, votes = (0.25, 0.5, 1.0), 2, 10**8
    terms = checked_terms(levels, 1.0, classes, alpha=1e-3, rule="interval", route=None, budget=Fixed(votes))
    for _ in range(40):
        p = generator.dirichlet([0.7] * 3)
        share = generator.uniform(0.51, 0.999, 3)
        tally = Tally(classes, 3)
        tally.record(Stream(ESTIMATOR, 0, SELECTION), np.round(p * 100).astype(np.int64))
        counts = np.floor(p * votes).astype(np.int64)
        counts[-1] = votes - counts[:-1].sum()
        tally.record(Stream(ESTIMATOR, 0, ESTIMATION), counts)
        for level in range(3):
            hits = int(share[level] * votes)
            tally.record(Stream(CLASSIFIER, level, SELECTION), np.array([100, 0]))
            tally.record(Stream(CLASSIFIER, level, ESTIMATION), np.array([hits, votes - hits]))
        expected = settle(terms, tally).radius
        radii = torch.tensor(np.asarray(levels) * norm.ppf(share))[None]
        got = float(interval_radii(torch.tensor(p)[None], radii, 1.0))
        if abs(norm.ppf(np.cumsum(p)[:-1])).max() < 2.8:  # inside of what the training target keeps
            assert got == pytest.approx(expected, abs=2e-3)


def test_the_share_that_is_certified_is_smooth_and_weighted() -> None:
    radius = torch.tensor([0.0, 1.0, 3.0])
    share = certified_share(radius, torch.tensor([0.0, 2.0]), torch.tensor([3.0, 1.0]), 1e-3)
    assert share.item() == pytest.approx((0.75 * 2 + 0.25) / 3, abs=1e-6)
    at = torch.tensor([0.5], requires_grad=True)
    certified_share(at, torch.tensor([0.5]), torch.tensor([1.0]), 0.15).backward()
    assert at.grad is not None
    assert at.grad.item() > 0


def test_the_share_that_one_vote_would_certify_is_worked_out_by_hand() -> None:
    """Two images: the first is right at .3 and 1.2 by level, the second at the first level only; radii 0 and 1 count 3
    to 1. A level that is wrong certifies nothing, at radius 0 either."""
    votes = torch.tensor([[0.75, 0.25], [0.01, 0.99]], requires_grad=True)
    radii = torch.tensor([[0.3, 1.2], [0.4, 0.0]])
    share = expected_share(votes, radii, torch.tensor([0.0, 1.0]), torch.tensor([3.0, 1.0]))
    assert share.item() == pytest.approx(((0.75 * 0.75 + 0.25 * 1.0) + 0.01 * 0.75) / 2)
    share.backward()
    assert votes.grad is not None
    torch.testing.assert_close(votes.grad, torch.tensor([[0.75, 1.0], [0.75, 0.0]]) / 2)  # as strong at .01 as at .75


def test_utility_is_the_weight_of_that_share(tiny: Config) -> None:
    data, index = load_training_data(tiny), torch.arange(32)
    losses = []
    for utility in (0.0, 1.0, 3.0):
        settings = dataclasses.replace(tiny.estimator, interval=0.0, utility=utility, width=0.25)
        spec, lesson = estimator_lesson(data, dataclasses.replace(tiny, estimator=settings), 32, "cpu")
        network = build(spec)
        initialise(network, torch.Generator().manual_seed(1))
        losses.append(lesson.loss(network, index, torch.Generator().manual_seed(2)).item())
    assert losses[0] > losses[1]
    assert losses[0] - losses[2] == pytest.approx(3 * (losses[0] - losses[1]), rel=1e-4)


def test_sharpness_is_that_of_the_logits_in_the_interval_term_alone(tiny: Config) -> None:
    """A head of three times the weights has the term that sharpness 3 has, and another cross-entropy."""
    data, index = load_training_data(tiny), torch.arange(32)

    def term(sharpness: float, factor: float) -> tuple[float, float]:
        losses = []
        for interval in (10.0, 0.0):
            settings = dataclasses.replace(tiny.estimator, interval=interval, sharpness=sharpness, width=0.25)
            spec, lesson = estimator_lesson(data, dataclasses.replace(tiny, estimator=settings), 32, "cpu")
            network = build(spec)
            initialise(network, torch.Generator().manual_seed(1))
            with torch.no_grad():
                for value in network.head.parameters():
                    value *= factor
            losses.append(lesson.loss(network.eval(), index, torch.Generator().manual_seed(2)).item())
        return losses[1] - losses[0], losses[1]

    (sharp, loss), (scaled, other), (plain, _) = term(3.0, 20.0), term(1.0, 60.0), term(1.0, 20.0)
    assert sharp == pytest.approx(scaled, abs=1e-4)
    assert abs(sharp - plain) > 1e-2
    assert abs(loss - other) > 1e-2
