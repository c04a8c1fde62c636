"""Exact one-sided bounds on a probability, from votes. Pure NumPy/SciPy; no normal approximations.

Every bound here fails with probability at most its `alpha`, whatever the true probability is, provided that the votes
are independent and that the event they are counted for was fixed before they were drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from dualsmooth.runtime.errors import InputError

Array = npt.NDArray[np.float64]

KT_ALPHA_MAX = 0.1
"""`kt_lower` inverts its test; up to this alpha the rejected probabilities form an interval that starts at 0."""

TAIL_ERROR = 1e-10
"""How far the computed chance that a bound fails may be above its alpha, relatively."""


def lower_bound(successes: npt.ArrayLike, trials: npt.ArrayLike, alpha: npt.ArrayLike) -> Array:
    """With probability at least 1 - alpha, p >= the returned value. Exact one-sided Clopper–Pearson.

    `successes` of `trials` independent votes, at one sample size that was fixed in advance; arrays broadcast.
    Exact at 0 successes (0) and at all successes (alpha ** (1 / trials)). Source: Clopper & Pearson 1934; Cohen et
    al. 2019, section 3.2.2; docs/mathematics.md, lemma A. Raises `InputError` where 0 <= successes <= trials or
    0 < alpha < 1 fails.

    >>> lower_bound([90, 100], 100, alpha=0.001).round(4)  # 100 votes of 100: 0.001 ** (1 / 100)
    array([0.7753, 0.9333])
    """
    k, n, a = _checked(successes, trials, alpha)
    some = np.maximum(k, 1)
    bound = np.where(k == 0, 0.0, special.betaincinv(some, n - k + 1, a))
    bound = np.clip(np.where((k == n) & (n > 0), a ** (1 / np.maximum(n, 1)), bound), 0.0, 1.0)
    step = 1e-14
    while True:  # SciPy's inverse may overshoot; the distribution itself is exact to 1e-12, and has the last word
        over = (k > 0) & ~(special.betainc(some, n - k + 1, bound) <= a * (1 + TAIL_ERROR))
        if not over.any():
            return np.asarray(bound, np.float64)
        bound = np.where(over, np.nan_to_num(bound) * max(0.0, 1 - step), bound)
        step *= 4


def upper_bound(successes: npt.ArrayLike, trials: npt.ArrayLike, alpha: npt.ArrayLike) -> Array:
    """With probability at least 1 - alpha, p <= the returned value. Exact one-sided Clopper–Pearson.

    The mirror image of `lower_bound`: failures bounded from below. Same arguments, source and errors.

    >>> float(upper_bound(0, 100, alpha=0.001).round(4))
    0.0667
    """
    k, n, a = _checked(successes, trials, alpha)
    return np.asarray(1.0 - lower_bound(n - k, n, a), np.float64)


def kt_log_evidence(successes: npt.ArrayLike, trials: npt.ArrayLike, p0: npt.ArrayLike) -> Array:
    """For every p <= p0: with probability at least 1 - alpha, this never reaches ln(1 / alpha), at any sample size.

    The logarithm of a test supermartingale against p <= p0: the likelihood ratio averaged over a Beta(1/2, 1/2)
    prior cut off below p0 (Krichevsky–Trofimov). It may be looked at after every vote, and sampling may stop for any
    reason (Ville's inequality). Arrays broadcast; 0 < p0 < 1. Source: Krichevsky & Trofimov 1981; Ville 1939;
    docs/mathematics.md, lemma B.

    >>> bool(kt_log_evidence(95, 100, p0=0.8) > np.log(1 / 0.001))  # 95 of 100: is p <= 0.8 rejected at 0.001?
    True
    """
    h, t, _ = _checked(successes, trials, 0.5)
    p = np.asarray(p0, np.float64)
    if not np.all((p > 0) & (p < 1)):
        raise InputError(f"p0 is {_show(p0)}; expected 0 < p0 < 1")
    return _kt_log_evidence(h, t - h, p)


def _kt_log_evidence(h: Array, misses: Array, p: Array) -> Array:
    prior = 2 / math.pi * np.arccos(np.sqrt(p))  # of Beta(1/2, 1/2) above p
    with np.errstate(divide="ignore"):
        cut = np.log(special.betaincc(h + 0.5, misses + 0.5, p) / prior)
    mixture = special.betaln(h + 0.5, misses + 0.5) - math.log(math.pi)
    return np.asarray(mixture - special.xlogy(h, p) - special.xlog1py(misses, -p) + cut, np.float64)


def kt_lower(successes: npt.ArrayLike, trials: npt.ArrayLike, alpha: npt.ArrayLike) -> Array:
    """With probability at least 1 - alpha, p >= the returned value at every sample size at once.

    The lower confidence sequence of `kt_log_evidence`: the largest p0 that is rejected at ln(1 / alpha), 0 where none
    is. Where the evidence exceeds 1 / alpha >= 10 it falls as p0 rises, so the rejected p0 form an interval from 0; its
    end is found by safeguarded Newton steps, and a point that was seen to be rejected is returned. Raises `InputError`
    for alpha above `KT_ALPHA_MAX`.

    >>> float(kt_lower(95, 100, alpha=0.001).round(3)), float(lower_bound(95, 100, alpha=0.001).round(3))
    (0.813, 0.845)
    """
    h, t, a = _checked(successes, trials, alpha)
    if np.any(a > KT_ALPHA_MAX):
        raise InputError(f"alpha is {_show(alpha)}; expected at most {KT_ALPHA_MAX} for the mixture test")
    h, t, a = np.broadcast_arrays(h, t, a)
    misses = t - h
    need = -np.log(a) + 1e-9 * (1 + t * 1e-3)  # above the rounding error of the log-gamma terms
    low = np.zeros(h.shape)
    high = np.clip(h / np.maximum(t, 1), 1e-9, 1 - 1e-9)
    point = high / 2
    for _ in range(100):
        excess = _kt_log_evidence(h, misses, point) - need
        low, high = np.where(excess >= 0, point, low), np.where(excess >= 0, high, point)
        if np.all(((excess >= 0) & (excess < 1e-5)) | (high - low < 1e-12)):
            break
        slope = h / point - misses / (1 - point)
        step = point + (excess - 5e-6) / np.maximum(slope, 1e-9)
        point = np.where((step > low) & (step < high), step, (low + high) / 2)
    return np.asarray(low, np.float64)


def normal_quantile(p: Array | float) -> Array:
    """Phi^-1, the standard normal quantile; -inf at 0 and +inf at 1."""
    return np.asarray(special.ndtri(p), np.float64)


def require_alpha(alpha: Any, least: float) -> None:
    """Raises `InputError` for an alpha outside [least, 0.1], such as a confidence."""
    number = isinstance(alpha, float | int) and not isinstance(alpha, bool)
    if number and least <= alpha <= 0.1:
        return
    fix = "e.g. 0.001"
    if number and 0.5 < alpha < 1:
        fix = f"a confidence of {alpha:g} is alpha {1 - alpha:.6g}"
    elif number and 50 < alpha < 100:
        fix = f"a confidence of {alpha:g} % is alpha {1 - alpha / 100:.6g}"
    elif number and 1 <= alpha <= 10:
        fix = f"{alpha:g} % is alpha {alpha / 100:.6g}"
    raise InputError(f"alpha is {alpha!r}; expected 0 < alpha <= 0.1: {fix}")


def _checked(successes: npt.ArrayLike, trials: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[Array, Array, Array]:
    k, n, a = (np.asarray(v, np.float64) for v in (successes, trials, alpha))
    if not (np.all(k >= 0) and np.all(k <= n) and np.all(np.isfinite(n)) and np.all(k == np.floor(k))):
        raise InputError(
            f"{_show(successes)} successes of {_show(trials)} trials; expected integers with 0 <= successes <= trials"
        )
    if not np.all((a > 0) & (a < 1)):
        raise InputError(f"alpha is {_show(alpha)}; expected 0 < alpha < 1")
    return k, n, a


def _show(value: Any) -> str:
    return str(value) if np.ndim(value) == 0 else f"array {np.asarray(value).ravel()[:4]}"
