from __future__ import annotations

import numpy as np
import pytest
import torch

from dualsmooth.training.estimator import consistency, level_weights, soft_labels


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


def test_consistency_is_the_published_regulariser() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(-1).numpy()
    mean = p.mean(axis=0)
    kl = np.mean([(mean * np.log(mean / copy)).sum(axis=1).mean() for copy in p])
    entropy = -(mean * np.log(mean)).sum(axis=1).mean()
    assert consistency(logits, 3.0, 0.5).item() == pytest.approx(3 * kl + 0.5 * entropy)
    same = logits[:1].repeat(2, 1, 1)
    assert consistency(same, 1.0, 0.0).item() == pytest.approx(0.0, abs=1e-12)
