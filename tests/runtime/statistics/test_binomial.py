"""Against scipy.stats, and against sums in exact fractions."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from dualsmooth.runtime.statistics.binomial import at_least, at_most, limits


@pytest.mark.parametrize(("n", "p"), [(1, Fraction(1, 2)), (7, Fraction(1, 3)), (20, Fraction(9, 10))])
def test_tails_are_those_of_the_sum(n: int, p: Fraction) -> None:
    law = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    for k in range(-2, n + 3):
        assert float(at_most(k, n, float(p))) == pytest.approx(float(sum(law[: max(k + 1, 0)])), rel=1e-12)
        assert float(at_least(k, n, float(p))) == pytest.approx(float(sum(law[max(k, 0) :])), rel=1e-12)


@pytest.mark.parametrize("n", [1, 1000, 1 << 22])
def test_small_tails_are_those_of_scipy(n: int) -> None:
    p = np.array([1e-9, 1 / 2048, 1 / 64, 0.3, 0.5, 0.97])
    for away in (-12, -3, 0, 4, 12):
        k = np.clip(np.rint(n * p + away * np.sqrt(n * p * (1 - p))), 0, n).astype(int)
        np.testing.assert_allclose(at_most(k, n, p), stats.binom.cdf(k, n, p), rtol=1e-9)
        np.testing.assert_allclose(at_least(k, n, p), stats.binom.sf(k - 1, n, p), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 12, 4096, 1 << 20])
@pytest.mark.parametrize("alpha", [0.1, 1e-9 / 12, 1e-14])
def test_limits_are_the_quantiles_of_scipy(n: int, alpha: float) -> None:
    p = np.array([1e-9, 1 / 2048, 1 / 64, 0.3, 0.5, 0.97])
    low, high = limits(n, p, alpha)
    np.testing.assert_array_equal(low, stats.binom.ppf(alpha / 2, n, p))
    np.testing.assert_array_equal(high, stats.binom.isf(alpha / 2, n, p))
    assert limits(n, 0.5, alpha)[0].shape == ()


def test_a_certificate_does_not_wait_for_scipys_statistics() -> None:
    code = "import sys, dualsmooth.runtime.commands.certify; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
