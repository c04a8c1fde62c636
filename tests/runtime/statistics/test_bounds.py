"""Bounds against exact answers: enumeration of the binomial, direct inversion, numerical integration."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from exact_budgets import false_probability, fewest_successes
from scipy import integrate, special, stats

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import round_down
from dualsmooth.runtime.statistics.bounds import (
    kt_log_evidence,
    kt_lower,
    lower_bound,
    normal_quantile,
    require_alpha,
    upper_bound,
)

ALPHAS = (0.1, 0.05, 1e-3)
BELOW, ABOVE = 1 - 1e-9, 1 + 1e-9


def worst_probabilities(bounds: np.ndarray) -> np.ndarray:
    """A grid of p, and p just below each bound: there the bound fails for as many outcomes as it ever does."""
    edges = bounds[(bounds > 0) & (bounds < 1)]
    return np.concatenate([np.linspace(0.01, 0.99, 25), edges * BELOW, 1 - (1 - edges) * ABOVE])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 41, 60])
def test_clopper_pearson_covers_exactly(n: int, alpha: float) -> None:
    k = np.arange(n + 1)
    low, high = lower_bound(k, n, alpha), upper_bound(k, n, alpha)
    p = worst_probabilities(np.concatenate([low, high]))[:, None]
    weights = stats.binom.pmf(k, n, p)
    assert np.all((weights * (low > p)).sum(1) <= alpha * ABOVE)
    assert np.all((weights * (high < p)).sum(1) <= alpha * ABOVE)


def test_clopper_pearson_spends_its_alpha() -> None:
    """A bound that never fails would pass every coverage test; this one fails with probability alpha at its edges."""
    n, alpha = 60, 0.05
    k = np.arange(1, n + 1)
    low = lower_bound(k, n, alpha)
    failing = [stats.binom.pmf(k, n, p * BELOW) @ (low > p * BELOW) for p in low]
    assert failing == pytest.approx([alpha] * n, rel=1e-6)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (10, 0), (10, 3), (10, 10), (1000, 999), (10**6, 1), (10**6, 10**6 - 1)])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_lower_bound_inverts_the_binomial_tail(n: int, k: int, alpha: float) -> None:
    low = float(lower_bound(k, n, alpha))
    if k == 0:
        assert low == 0
    else:
        assert stats.binom.sf(k - 1, n, low) == pytest.approx(alpha, rel=1e-8)


def log_tail(k: int, n: int, p: float) -> float:
    """ln P(at least k successes of n), added up term by term."""
    ways = math.fsum(math.log((n - i) / (i + 1)) for i in range(min(k, n - k)))
    ratios = [(n - j) / (j + 1) * p / (1 - p) for j in range(k, min(n, k + 3000))]
    return ways + k * math.log(p) + (n - k) * math.log1p(-p) + math.log1p(float(np.cumprod(ratios).sum()))


@pytest.mark.parametrize(
    ("n", "k", "alpha"),
    [
        (2_258_930, 2_257_931, 1.1404466825812735e-06),
        (9_853_439, 9_852_440, 0.001771461285177113),
        (8_255_408, 8_254_409, 2.7222913971601906e-55),
        (100, 3, 1e-103),
        (10**8, 5, 1e-103),
    ],
)
def test_overshoots_of_the_inverse_beta_function_are_noticed(n: int, k: int, alpha: float) -> None:
    """SciPy 1.17's bounds here fail more often than alpha: by 4e-5, 9e-7, 0.4 %, and 1e10 and 1e33 times."""
    low = float(lower_bound(k, n, alpha))
    assert low > 0
    assert log_tail(k, n, low) < math.log(alpha) + 1e-8


@pytest.mark.parametrize("n", [1, 60, 10**6, 10**8])
def test_all_successes_have_a_closed_form(n: int) -> None:
    exact = 1e-3 ** (1 / n)
    assert exact * (1 - 1e-13) <= lower_bound(n, n, 1e-3) <= exact * (1 + 3e-16)  # libraries round otherwise
    assert upper_bound(0, n, 1e-3) == pytest.approx(-math.expm1(math.log(1e-3) / n), rel=1e-7)
    assert upper_bound(n, n, 1e-3) == 1


def test_bounds_broadcast() -> None:
    k, n, alpha = np.array([[0], [5], [10]]), np.array([10, 20]), 0.01
    together = lower_bound(k, n, alpha)
    assert together.shape == (3, 2)
    assert together.tolist() == [[float(lower_bound(a, b, alpha)) for b in (10, 20)] for a in (0, 5, 10)]
    assert lower_bound(5, 10, np.array([0.1, 0.01])).shape == (2,)


def test_bounds_are_monotone_in_successes_and_alpha() -> None:
    k = np.arange(201)[:, None]
    alphas = np.array([1e-6, 1e-3, 0.01, 0.1])
    for bound in (lower_bound, kt_lower):
        low = bound(k, 200, alphas)
        assert np.all(np.diff(low, axis=0) >= 0)
        assert np.all(np.diff(low, axis=1) >= 0)
        assert np.all(low <= k / 200)


def test_time_uniform_bound_is_below_the_one_at_a_fixed_size() -> None:
    k = np.arange(501)
    assert np.all(kt_lower(k, 500, 0.01) <= lower_bound(k, 500, 0.01))


def truncated_mixture(h: int, t: int, p0: float) -> float:
    """The evidence from its definition: the likelihood ratio, averaged over arcsin(sqrt(p)) uniform above p0."""

    def log_ratio(p: float) -> float:
        return float(special.xlogy(h, p / p0) + special.xlogy(t - h, (1 - p) / (1 - p0)))

    start, top = math.asin(math.sqrt(p0)), log_ratio(max(h / t, p0))
    peak = math.asin(math.sqrt(max(h / t, p0)))
    area = sum(
        integrate.quad(lambda angle: math.exp(log_ratio(math.sin(angle) ** 2) - top), low, high, limit=500)[0]
        for low, high in ((start, peak), (peak, math.pi / 2))
    )
    return top + math.log(area / (math.pi / 2 - start))


@pytest.mark.parametrize("p0", [0.05, 0.5, 0.8413, 0.99])
@pytest.mark.parametrize(("h", "t"), [(0, 3), (1, 1), (5, 5), (30, 40), (59, 60), (400, 500), (498, 500)])
def test_evidence_is_the_integral_it_claims_to_be(h: int, t: int, p0: float) -> None:
    assert float(kt_log_evidence(h, t, p0)) == pytest.approx(truncated_mixture(h, t, p0), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("p0", [0.2, 0.5, 0.8413, 0.97])
def test_evidence_is_a_supermartingale(p0: float) -> None:
    """One more vote never raises its expectation, whatever the true p <= p0."""
    t = np.arange(0, 60)[:, None]
    h = np.minimum(np.arange(0, 60), t)
    now, hit, miss = (np.exp(kt_log_evidence(a, b, p0)) for a, b in ((h, t), (h + 1, t + 1), (h, t + 1)))
    for p in (p0, p0 / 2, 0.01):
        assert np.all(p * hit + (1 - p) * miss <= now * (1 + 1e-9))
    assert kt_log_evidence(0, 0, p0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("p0", [0.5, 0.6, 0.8413, 0.95, 0.99])
def test_evidence_rarely_ever_reaches_its_threshold(p0: float, alpha: float) -> None:
    """Exact, over every path of 1,000 votes at p = p0, looked at after each vote."""
    t = np.arange(1, 1001)
    need = fewest_successes(lambda h: kt_log_evidence(h, t, p0) >= -math.log(alpha), t)
    assert alpha / 20 < false_probability(t, need, p0) <= alpha


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("p", [0.5, 0.8413, 0.99])
def test_kt_lower_is_a_confidence_sequence(p: float, alpha: float) -> None:
    """Exact, as above, for the inverted test: it exceeds p at any of 500 looks with probability at most alpha."""
    t = np.arange(1, 501)
    need = fewest_successes(lambda h: kt_lower(h, t, alpha) > p, t)
    assert false_probability(t, need, p) <= alpha


@pytest.mark.parametrize("alpha", ALPHAS)
def test_kt_lower_is_just_inside_the_rejected_interval(alpha: float) -> None:
    """Every p0 up to the bound is rejected (by a scan that assumes no monotonicity), and little is given away."""
    grid = np.linspace(1e-4, 1 - 1e-4, 1500)
    for t in (1, 2, 3, 5, 10, 33, 150, 1000, 20_000):
        for h in np.unique(np.linspace(0, t, 16).astype(int)):
            low = float(kt_lower(h, t, alpha))
            rejected = kt_log_evidence(h, t, grid) >= -math.log(alpha)
            assert rejected[grid <= low].all()
            if low > 0:
                assert float(kt_log_evidence(h, t, low)) >= -math.log(alpha)
                assert float(kt_log_evidence(h, t, low)) < -math.log(alpha) + 1e-4


def test_normal_quantile_at_the_ends() -> None:
    assert normal_quantile(np.array([0.0, 0.5, 1.0])).tolist() == [-math.inf, 0.0, math.inf]


def test_round_down_is_never_above() -> None:
    radii = np.random.default_rng(1).exponential(1.0, 20_000)
    radii = np.concatenate([radii, np.arange(1, 5000) / 1e6, np.arange(1, 5000) / 1000, [0, 1e-7, 1e-6, 123.456789]])
    for radius in radii:
        rounded = round_down(float(radius))
        assert radius - 2.1e-6 <= rounded <= radius
        assert round(rounded * 1e6) / 1e6 == rounded
    assert round_down(-1.0) == 0


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (lower_bound, (-1, 10, 0.1)),
        (lower_bound, (11, 10, 0.1)),
        (lower_bound, (1.5, 10, 0.1)),
        (lower_bound, (1, math.nan, 0.1)),
        (lower_bound, (1, math.inf, 0.1)),
        (lower_bound, (1, 10, 0.0)),
        (lower_bound, (1, 10, 1.0)),
        (lower_bound, (1, 10, math.nan)),
        (upper_bound, (np.array([3, 11]), 10, 0.1)),
        (kt_lower, (5, 10, 0.2)),
        (kt_log_evidence, (5, 10, 0.0)),
        (kt_log_evidence, (5, 10, 1.0)),
        (round_down, (math.nan,)),
        (round_down, (math.inf,)),
    ],
)
def test_unusable_arguments_are_refused_in_one_line(call: object, arguments: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_the_chance_to_fail_is_alpha_to_ten_digits() -> None:
    """Against the binomial tail in 50 digits: what `TAIL_ERROR` says holds for every SciPy that is allowed."""
    rng = np.random.default_rng(0)
    with localcontext(prec=50):
        for _ in range(200):
            n = int(10 ** rng.uniform(1, 8))
            misses, alpha = int(min(n - 1, 10 ** rng.uniform(0, 2.3))), float(10 ** rng.uniform(-8, -1))
            p = Decimal(float(lower_bound(n - misses, n, alpha)))
            term = tail = p**n
            for j in range(1, misses + 1):
                term = term * (n - j + 1) / j * (1 - p) / p
                tail += term
            assert 0.999 < tail / Decimal(alpha) <= 1 + Decimal("1.01e-10")


@pytest.mark.parametrize(
    ("alpha", "fix"),
    [
        (0.999, "a confidence of 0.999 is alpha 0.001$"),
        (0.95, "a confidence of 0.95 is alpha 0.05$"),
        (99.9, "a confidence of 99.9 % is alpha 0.001$"),
        (95, "a confidence of 95 % is alpha 0.05$"),
        (5, "5 % is alpha 0.05$"),
        *((value, "e.g. 0.001$") for value in (0, -1, 0.2, 100, float("nan"), "0.001", True, None)),
    ],
)
def test_a_confidence_is_no_alpha(alpha: Any, fix: str) -> None:
    with pytest.raises(InputError, match=fix):
        require_alpha(alpha, 1e-100)
