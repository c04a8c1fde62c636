"""Properties of every certificate: monotone, below what the empirical frequencies say, rounded down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from dualsmooth.runtime.rounding import round_down
from dualsmooth.runtime.statistics.bounds import kt_lower, lower_bound
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Budget, Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.rules.rule import Outcome
from dualsmooth.runtime.statistics.votes import Stream

SIGMAS, SIGMA_E = (0.25, 0.5, 1.0), 0.8
BUDGETS = st.sampled_from([Fixed(100), Adaptive(150), AtRadius(0.3, 31)])
ALPHAS = st.floats(1e-9, 0.1)
SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
RULES = st.sampled_from([("interval", "median"), ("interval", "mode"), ("paper", "median"), ("paper", "mode")])
CHECKS = settings(max_examples=150, deadline=None)


def split(shares: list[float], n: int) -> np.ndarray:
    """n votes in about these shares."""
    cuts = np.round(np.cumsum(shares) / sum(shares) * n).astype(np.int64)
    return np.diff(np.concatenate([[0], cuts]))


def outcome(
    budget: Budget, alpha: float, rule: tuple[str, str], router: np.ndarray, label: list[int], route: int = 0
) -> Outcome:
    """A certificate of three levels and two classes: votes of the router, and votes for class 1 at each level."""
    terms = checked_terms(SIGMAS, SIGMA_E, 2, alpha=alpha, rule=rule[0], route=rule[1], budget=budget)
    n, tally = budget.looks[0], terms.tally()
    tally.record(Stream("estimator", 0, "selection"), np.eye(3, dtype=np.int64)[route] * 9)
    tally.record(Stream("estimator", 0, "estimation"), router)
    tally.record(Stream("classifier", route, "selection"), np.array([0, 9]))
    for level, k in enumerate(label):
        tally.record(Stream("classifier", level, "estimation"), np.array([n - k, k]))
    return settle(terms, tally)


@CHECKS
@given(BUDGETS, ALPHAS, RULES, SHARES, st.lists(st.integers(0, 31), min_size=3, max_size=3), st.integers(0, 2))
def test_radius_grows_with_the_votes_for_the_label(
    budget: Budget, alpha: float, rule: tuple[str, str], shares: list[float], misses: list[int], level: int
) -> None:
    n, router = budget.looks[0], split(shares, budget.looks[0])
    before = outcome(budget, alpha, rule, router, [n - m for m in misses])
    misses[level] = max(0, misses[level] - 3)
    after = outcome(budget, alpha, rule, router, [n - m for m in misses])
    assert after.radius >= before.radius


@CHECKS
@given(BUDGETS, ALPHAS, RULES, SHARES, st.integers(0, 5))
def test_radius_grows_with_the_votes_for_the_route(
    budget: Budget, alpha: float, rule: tuple[str, str], shares: list[float], moved: int
) -> None:
    """From any level to the lowest, which is the guess."""
    n, router = budget.looks[0], split(shares, budget.looks[0])
    better = router.copy()
    for _ in range(moved):
        worst = int(np.argmax(better[1:])) + 1
        better[worst] -= better[worst] > 0
        better[0] = n - better[1:].sum()
    label = [n, n // 2, n // 2]
    assert outcome(budget, alpha, rule, better, label).radius >= outcome(budget, alpha, rule, router, label).radius


@CHECKS
@given(BUDGETS, ALPHAS, ALPHAS, RULES, SHARES, st.lists(st.integers(0, 31), min_size=3, max_size=3), st.integers(0, 2))
def test_radius_grows_with_alpha(
    budget: Budget,
    alpha: float,
    other: float,
    rule: tuple[str, str],
    shares: list[float],
    misses: list[int],
    route: int,
) -> None:
    n, router = budget.looks[0], split(shares, budget.looks[0])
    label = [n - m for m in misses]
    low, high = sorted([alpha, other])
    assert (
        outcome(budget, low, rule, router, label, route).radius
        <= outcome(budget, high, rule, router, label, route).radius + 1e-6
    )


@CHECKS
@given(BUDGETS, ALPHAS, RULES, SHARES, st.lists(st.integers(0, 31), min_size=3, max_size=3), st.integers(0, 2))
def test_radius_is_below_what_the_frequencies_say(
    budget: Budget, alpha: float, rule: tuple[str, str], shares: list[float], misses: list[int], route: int
) -> None:
    """Every claim is below its empirical frequency, so the radius is below the one of exact probabilities k / n."""
    n, router = budget.looks[0], split(shares, budget.looks[0])
    made = outcome(budget, alpha, rule, router, [n - m for m in misses], route)
    z = special.ndtri(np.clip(np.cumsum(router) / n, 0, 1))[:2]
    share = router / n
    for s in range(3):
        at_label = SIGMAS[s] * max(0.0, float(special.ndtri(1 - misses[s] / n)))
        assert made.class_radii[s] <= at_label
        if rule[1] == "median":
            excluded = max(0.0, z[s - 1] if s > 0 else 0.0, -z[s] if s < 2 else 0.0)
        else:
            top, rival = float(special.ndtri(share[route])), float(special.ndtri(share[s]))
            excluded = 0.0 if top == rival else max(0.0, (top - rival) / 2)
        assert made.exclusion[s] <= SIGMA_E * excluded
        assert made.radius <= max(at_label, SIGMA_E * excluded)


@CHECKS
@given(ALPHAS, st.integers(1, 3000), st.floats(0, 1))
def test_bounds_are_below_the_frequency(alpha: float, n: int, share: float) -> None:
    k = round(share * n)
    assert 0 <= kt_lower(k, n, alpha) <= lower_bound(k, n, alpha) <= k / n


@CHECKS
@given(st.floats(0, 1e6))
def test_rounding_never_enlarges(radius: float) -> None:
    assert round_down(radius) <= radius
    assert round_down(radius) >= radius * (1 - 2e-9) - 1.1e-6
