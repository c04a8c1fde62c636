"""Statistics of sound noise, with exact limits: of their distribution, or of an inequality that holds for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from dualsmooth.runtime.statistics.binomial import limits

FALSE_ALARM = 1e-9
LAGS = 1 << 14
"""Serial correlation is tested at every lag below: rows, channels and images up to this many values apart."""
_FAMILIES = 12
"""Statistics that share `FALSE_ALARM` in equal parts."""
SHARE = FALSE_ALARM / _FAMILIES
_MOST = {"f": 2.0**-23, "d": 2.0**-32}
"""No value of a sound generator is more probable: of float32 normals, 0 is the likeliest (23 random bits are 0); a
float64 normal of MKL's is a sum of two that have 32, and one made of a word has 53. So the
probability that four values in a row repeat among the self-test's is below 2^-54."""

Draws = npt.NDArray[Any]


class Found(NamedTuple):
    """A statistic, and the limits that sound noise leaves with a probability of at most its share of `FALSE_ALARM`."""

    name: str
    value: float
    low: float
    high: float


def statistics(draws: Draws) -> Iterator[Found]:
    """Statistics of independent streams [streams, n] of standard normals, with exact limits."""
    pool = np.sort(draws, axis=None)
    n, values = pool.size, pool.astype(np.float64)
    reach = float(special.ndtri(1 - SHARE / 2) / np.sqrt(n))
    yield Found("mean", float(values.mean()), -reach, reach)
    power = float(values @ values) / n
    ends = (SHARE / 2, 1 - SHARE / 2)
    yield Found("variance", power, *(2 * float(special.gammaincinv(n / 2, q)) / n for q in ends))
    u = special.erf(values / np.sqrt(2.0))
    square = u * u
    # Legendre polynomials of a uniform variable: mean 0, variance 1 / (2k + 1), at most 1 (Neyman 1937; Bernstein)
    for name, shape, variance in (
        ("skewness", u * (5 * square - 3) / 2, 1 / 7),
        ("kurtosis", ((35 * square - 30) * square + 3) / 8, 1 / 9),
    ):
        high = _bernstein(variance, n)
        yield Found(name, float(shape.mean()), -high, high)
    bins = special.ndtri(np.arange(1, 64) / 64)
    inside = np.diff(np.searchsorted(values, bins), prepend=0, append=n)
    yield from counts("share of a 64th of the values", inside, n, np.full(64, 1 / 64), SHARE / 64)
    edges = np.array([2, 3, 3.5, 4, 5, 6])
    upper, lower = n - np.searchsorted(values, edges, side="right"), np.searchsorted(values, -edges)
    for side, beyond, sides in (("upper tail", upper, 1), ("lower tail", lower, 1), ("tails", upper + lower, 2)):
        yield from counts(side, beyond, n, sides * special.ndtr(-edges), SHARE / 18)
    yield from _agreements(draws)
    yield _repeats(pool)


def _bernstein(variance: float, n: int) -> float:
    """The mean of n terms of at most 1 and this variance exceeds the result with probability at most SHARE / 2."""
    log = np.log(2 / SHARE)
    return float((log / 3 + np.sqrt(log**2 / 9 + 2 * n * variance * log)) / n)


def counts(name: str, counts: Draws, n: int, p: Draws, alpha: float) -> Iterator[Found]:
    low, high = limits(n, p, alpha)
    worst = int(np.argmax(np.abs(counts - n * p) / np.sqrt(n * p)))
    off = np.flatnonzero((counts < low) | (counts > high))
    at = int(off[0]) if off.size else worst
    yield Found(name, float(counts[at]) / n, float(low[at]) / n, float(high[at]) / n)


def _repeats(pool: Draws) -> Found:
    """How many of the sorted values occurred before: each new one does with probability at most (drawn so far) * most.
    Chernoff's bound for a sum of such indicators."""
    mean = pool.size**2 / 2 * _MOST[pool.dtype.char]
    most = mean + 10
    while most * (np.log(most / mean) - 1) + mean < -np.log(SHARE):
        most *= 1.01
    return Found("number of repeated values", float((pool[1:] == pool[:-1]).sum()), 0, float(most))


def _agreements(draws: Draws) -> Iterator[Found]:
    """Signs, and whether values are large, at all lags of four streams, and between all streams.

    Under sound noise these are fair coins, and so are the agreements of a coin with a later one or with another
    stream's: their sums follow Hoeffding's inequality.
    """
    middle = float(special.ndtri(0.75))
    for what, coins in (("sign", draws > 0), ("size", np.abs(draws) > middle)):
        signs = 2.0 * coins - 1
        count = 2 * LAGS
        line = signs[:4].ravel()
        spectrum = fft.rfft(line, line.size + LAGS)
        sums = fft.irfft(spectrum.real**2 + spectrum.imag**2)[1:LAGS]
        pairs = line.size - np.arange(1, LAGS)
        reach = np.sqrt(2 * np.log(2 * count / SHARE) * pairs)
        at = int(np.argmax(np.abs(sums) / reach))
        yield Found(
            f"serial correlation of {what}s", *(float(v / pairs[at]) for v in (sums[at], -reach[at], reach[at]))
        )
        both = signs @ signs.T / signs.shape[1]
        np.fill_diagonal(both, 0)
        high = float(np.sqrt(2 * np.log(2 * both.size / SHARE) / signs.shape[1]))
        worst = both.flat[int(np.argmax(np.abs(both)))]
        yield Found(f"correlation of two streams' {what}s", float(worst), -high, high)


def bits(words: Draws) -> Iterator[Found]:
    """How often each bit and each byte of uniform words has each of its values, with exact limits."""
    every = np.ascontiguousarray(words.ravel(), "<u8").view(np.uint8).reshape(-1, 8)
    seen = np.array([np.bincount(column, minlength=256) for column in every.T])
    ones = np.array([[row[np.arange(256) >> bit & 1 == 1].sum() for bit in range(8)] for row in seen])
    yield from counts("share of a bit", ones.ravel(), len(every), np.full(64, 0.5), SHARE / 64)
    yield from counts("share of a byte", seen.ravel(), len(every), np.full(2048, 1 / 256), SHARE / 2048)
