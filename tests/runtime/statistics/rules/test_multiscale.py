"""The multi-scale cascade: its certificates against the cascade's exact answers along a line."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import toys
from scipy import special, stats

import dualsmooth as ds
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import Stream

SIGMAS = (0.1, 0.5, 0.9)
CUTS = (0.3, 0.75)
LINE = np.linspace(-4, 5, 90_001)


def cascade(t: np.ndarray) -> np.ndarray:
    """The exact answer at each t: the largest sigma with a class above 1/2 says it; -1 where all abstain."""
    answer = np.full(len(t), -1)
    for sigma in SIGMAS:  # ascending: larger ones overwrite
        below = special.ndtr((np.array(CUTS) - t[:, None]) / sigma)
        p = np.diff(np.hstack([np.zeros((len(t), 1)), below, np.ones((len(t), 1))]))
        answer = np.where(p.max(1) > 0.5, p.argmax(1), answer)
    return answer


ANSWERS = cascade(LINE)


def true_radius(t: float, label: int) -> float:
    return float(np.abs(LINE[label != ANSWERS] - t).min())


@pytest.fixture
def smoother(tmp_path: Path) -> ds.Smoother:
    toys.write_bundle(tmp_path / "b", sigmas=SIGMAS, sigma_e=0.5, estimator_cuts=[0.3, 0.6], classifier_cuts=[CUTS] * 3)
    return ds.load(tmp_path / "b", batch_size=8192, threads=1)


@pytest.mark.parametrize("t", [0.525, 0.68, 0.2, 1.0])
def test_true_radius_is_rarely_exceeded(smoother: ds.Smoother, t: float) -> None:
    """At 0.525 and 0.68 the middle class is certified at the smallest level, larger levels abstain for certain."""
    count, alpha = 150, 0.05
    made = list(
        smoother.certify_many(
            repeat(toys.image(t, 0), count), alpha=alpha, rule="multiscale", budget=ds.Fixed(1000, 30), seed=3
        )
    )
    wrong = sum(c.radius > true_radius(t, c.label) for c in made if c.label is not None)
    assert stats.binomtest(wrong, count, alpha, alternative="greater").pvalue > 1e-6
    assert sum(not c.abstained for c in made) > (count / 2 if t in (0.525, 1.0) else -1)


def terms(classes: int = 3) -> Terms:
    return checked_terms(
        SIGMAS[:2], 0.5, classes, alpha=0.01, rule="multiscale", route=None, budget=ds.Fixed(1000, n0=10)
    )


def outcome(small: list[int], large: list[int]) -> tuple[int | None, float]:
    made = terms(len(small)).tally()
    for level, counts in enumerate((small, large)):
        made.record(Stream("classifier", level, "selection"), np.array(counts) // 100)
        made.record(Stream("classifier", level, "estimation"), np.array(counts))
    settled = settle(terms(len(small)), made)
    return settled.label, settled.radius


def test_smaller_levels_answer_only_where_larger_ones_certainly_abstain() -> None:
    assert outcome([980, 10, 10], [300, 300, 400])[0] == 0
    assert outcome([980, 10, 10], [500, 300, 200]) == (None, 0)
    assert outcome([10, 980, 10], [980, 10, 10])[0] == 0
    label, radius = outcome([1000, 0, 0], [430, 330, 240])
    assert label == 0
    assert radius < -SIGMAS[1] * float(special.ndtri(0.43))


def test_two_classes_never_abstain_for_certain() -> None:
    assert outcome([1000, 0], [501, 499]) == (None, 0)


def test_larger_levels_come_first_and_the_cascade_ends_early(smoother: ds.Smoother) -> None:
    made = smoother.certify(toys.image(1.0, 0), rule="multiscale", budget=ds.Fixed(500))
    assert made.sigma == 0.9
    assert made.passes == 600


def test_missing_levels_are_refused() -> None:
    made = terms().tally()
    made.record(Stream("classifier", 1, "selection"), np.array([3, 3, 4]))
    made.record(Stream("classifier", 1, "estimation"), np.array([300, 300, 400]))
    with pytest.raises(ds.CertificateError, match="level 0 lacks"):
        settle(terms(), made)


def test_the_label_comes_from_selection_votes_alone() -> None:
    made = terms().tally()
    for level in (0, 1):
        made.record(Stream("classifier", level, "selection"), np.array([6, 4, 0]))
        made.record(Stream("classifier", level, "estimation"), np.array([10, 980, 10]))
    settled = settle(terms(), made)
    assert (settled.guess, settled.label, settled.radius) == (0, None, 0)


def test_no_level_spends_more_than_alpha_over_k(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bound for the label and one for the largest class at each level: alpha / K each, and only K can matter."""
    spent = []
    plain = ds.Fixed.lower

    def lower(self: ds.Fixed, successes: np.ndarray, look: int, alpha: float) -> np.ndarray:
        spent.append((np.size(successes), alpha))
        return plain(self, successes, look, alpha)

    monkeypatch.setattr(ds.Fixed, "lower", lower)
    outcome([980, 10, 10], [300, 300, 400])
    assert spent == [(1, 0.005)] * 4
