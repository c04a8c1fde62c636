"""Known wrong practices with votes: each breaks its alpha on an exact example, and ours does not."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from exact_budgets import budget_needs, clopper_needs, false_probability
from scipy import stats

from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.prediction import predicted
from dualsmooth.runtime.statistics.rules.rule import Outcome
from dualsmooth.runtime.statistics.votes import Stream, Tally

N, ALPHA = 60, 0.05


def split_votes(classes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """All counts of n votes over `classes` equally likely classes, and their probabilities."""
    counts = np.array([c for c in product(range(n + 1), repeat=classes - 1) if sum(c) <= n])
    counts = np.column_stack([counts, n - counts.sum(1)])
    return counts, stats.multinomial.pmf(counts, n, [1 / classes] * classes)


def test_bounding_the_votes_that_chose_the_label() -> None:
    """Three equally likely classes. The winner of the votes is not a class that was fixed before them."""
    counts, weights = split_votes(3, N)
    wins = counts.max(1)
    naive = weights[lower_bound(wins, N, ALPHA) > 1 / 3].sum()
    assert naive > 1.5 * ALPHA

    # ours: whichever class the selection votes choose, its count among separate votes is binomial
    k = np.arange(N + 1)
    ours = stats.binom.pmf(k, N, 1 / 3)[lower_bound(k, N, ALPHA) > 1 / 3].sum()
    assert ours <= ALPHA


def certify_half_space(selection: list[int], estimation: list[int]) -> Outcome:
    terms = checked_terms((0.5,), 1.0, 2, alpha=ALPHA, rule="interval", route=None, budget=Fixed(N, n0=9))
    tally = terms.tally()
    tally.record(Stream("classifier", 0, "selection"), np.array(selection))
    tally.record(Stream("classifier", 0, "estimation"), np.array(estimation))
    return settle(terms, tally)


def test_the_label_comes_from_selection_votes_alone() -> None:
    """A label that 56 of 60 bounded votes speak for is not returned when the selection votes guessed another."""
    assert certify_half_space([0, 9], [4, 56]).label == 1
    assert certify_half_space([9, 0], [4, 56]).label is None
    total = sum(
        stats.binom.pmf(s, 9, 0.5) * stats.binom.pmf(k, N, 0.5)
        for s in range(10)
        for k in range(N + 1)
        if certify_half_space([9 - s, s], [N - k, k]).label is not None
    )
    assert total <= ALPHA  # at p = 1/2 no label may be certified


def test_peeking_without_spending() -> None:
    budget = Adaptive(2000)
    peeking = clopper_needs(budget.looks, np.full(len(budget.looks), ALPHA), 0.6)
    assert false_probability(*peeking, 0.6) > 2 * ALPHA
    for ours in (budget, AtRadius(0.5, 2000)):
        assert false_probability(*budget_needs(ours, ALPHA, 0.6), 0.6) <= ALPHA


def test_looks_that_were_not_fixed_in_advance() -> None:
    """Waiting for a good moment between the looks, at the last look's share: breaks even Adaptive's spending."""
    budget, every = Adaptive(2000), np.arange(200, 2001)
    waiting = clopper_needs(every, np.full(len(every), 0.8 * ALPHA), 0.6)
    assert false_probability(*waiting, 0.6) > 2 * ALPHA
    assert 1234 not in budget.looks


def test_choosing_the_best_sigma_afterwards() -> None:
    """The envelope over single sigmas, each at alpha, is no certificate; one guessed route is."""
    k = np.arange(N + 1)
    p = float(lower_bound(50, N, ALPHA)) * (1 - 1e-9)
    fails = float(stats.binom.pmf(k, N, p)[lower_bound(k, N, ALPHA) > p].sum())
    assert 1 - (1 - fails) ** 3 > 2 * ALPHA
    assert fails <= ALPHA * (1 + 1e-6)


def test_normal_approximations() -> None:
    """The Wald interval at 29 of 30 and the like: fails far more often than Clopper–Pearson may."""
    n, alpha, p = 100, 1e-3, 0.99
    k = np.arange(n + 1)
    wald = k / n - stats.norm.isf(alpha) * np.sqrt(k * (n - k) / n**3)
    weights = stats.binom.pmf(k, n, p)
    assert weights[wald > p].sum() > 100 * alpha
    assert weights[lower_bound(k, n, alpha) > p].sum() <= alpha


def test_predicting_from_the_winner_alone() -> None:
    """Returning the top class without a test is wrong half of the time at p = 1/2; ours abstains."""
    wrong = 0.0
    for k in range(N + 1):
        tally = Tally(2, 1)
        tally.record(Stream("classifier", 0, "prediction"), np.array([N - k, k]))
        if predicted(tally, levels=1, alpha=ALPHA, route="median")[0] is not None:
            wrong += stats.binom.pmf(k, N, 0.5)
    assert wrong <= ALPHA


@pytest.mark.parametrize("n", [100, 10_000])
def test_treating_all_successes_as_certainty(n: int) -> None:
    """n of n votes: p = 1 would be an infinite radius; the bound says what the votes prove."""
    p = 1 - 0.5 / n
    assert stats.binom.pmf(n, n, p) > 0.6  # so often would "radius infinite" be claimed
    assert lower_bound(n, n, 0.001) < p
