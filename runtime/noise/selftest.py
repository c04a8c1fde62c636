"""Self-test of the noise: a broken or tampered generator, or a constant entropy source, issues no certificate.

Every statistic is compared with its exact distribution under sound noise, or with an inequality that holds for it;
nothing is asymptotic. A sound generator fails a test with probability at most `FALSE_ALARM`, all statistics together.
Motivation: Dahiya et al. 2024, "Machine Learning Needs Better Randomness Standards" (USENIX Security).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise.forks import ForkLock
from dualsmooth.runtime.noise.philox import Philox4x32
from dualsmooth.runtime.noise.streams import GENERATORS, LATTICE, STEPS, Noise, Seed, add_noise
from dualsmooth.runtime.statistics.binomial import limits
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream

FALSE_ALARM = 1e-9
DRAWS = 1 << 16
"""Normals of each of the `STREAMS` that are examined in full."""
LAGS = 1 << 14
"""Serial correlation is tested at every lag below: rows, channels and images up to this many values apart."""
WINDOW = 4
"""So many equal values in a row are a repeated block."""
ENTROPIES = 64
"""128-bit draws from the operating system that are examined."""

PARTS = ("SFC64", "Philox", "Generator", "SeedSequence")
"""Of NumPy, which normals are made of."""
STREAMS = tuple(product((0, 1), (ESTIMATOR, CLASSIFIER), (SELECTION, ESTIMATION)))
"""Image, stage and purpose of the streams that are examined in full."""
_KEYS = tuple(product(range(8), (ESTIMATOR, CLASSIFIER), range(4), (SELECTION, ESTIMATION)))
_FAMILIES = 10
"""Statistics that share `FALSE_ALARM` in equal parts."""
_SHARE = FALSE_ALARM / _FAMILIES
_MOST = {"f": 2.0**-23, "d": 2.0**-32}
"""No value of a sound generator is more probable: of float32 normals, 0 is the likeliest (23 random bits are 0); a
float64 normal of MKL's is a sum of two that have 32. So the probability that `WINDOW` values repeat among ours is below
2^-54."""

KNOWN: dict[tuple[str, str], tuple[float, ...]] = {
    ("SFC64", "f"): (-0.3383953273296356, 1.4934649467468262, -0.9167395830154419, -0.4564055800437927),
    ("SFC64", "d"): (-0.08528922886396512, -0.7837655337956596, -0.5188224861376206, -0.9544271128126626),
    ("Philox", "f"): (-0.16072998940944672, 2.204301357269287, 0.21489477157592773, -0.1370670348405838),
    ("Philox", "d"): (-1.0055191891886377, 0.9593141530046867, 1.0980631287922886, -1.377805579863831),
    ("MKL", "f"): (-0.663074459119031, -0.8200442272559125, 0.43557478488459583, -0.5531644691775243),
    ("MKL", "d"): (-1.0487232804402071, 0.846224313053319, -1.3675503240238667, -0.6726374938118225),
    ("Philox4x32", "f"): (-0.8368725180625916, 0.06062265485525131, 1.592333197593689, -0.8565635681152344),
    ("Philox4x32", "d"): (-0.1647274349852061, 0.8227367055859043, -0.058143353173268984, -0.7112175340359809),
}
"""The first three normals and the 4096th of seed 2026 with key (1, 2, 3, 4), by generator and dtype. The same in NumPy
1.26 and 2.4: certificates that name a generator can only be replayed while they are."""

Draws = npt.NDArray[Any]
_lock = ForkLock()
_passed: set[tuple[object, ...]] = set()


class Found(NamedTuple):
    """A statistic, and the limits that sound noise leaves with a probability of at most its share of `FALSE_ALARM`."""

    name: str
    value: float
    low: float
    high: float


def require_sound(noise: Noise, xp: Any = np) -> None:
    """Test the generator of `noise` and the entropy source, once a process for each mode, generator and array module.

    Raises `EngineError`. A generator, or a part of one, that is replaced later is tested again.
    """
    maker = GENERATORS[noise.generator]
    key = (noise.mode == LATTICE, noise.generator, maker, *(getattr(np.random, name) for name in PARTS), id(xp))
    with _lock:
        if key not in _passed:
            check_entropy()
            check_generator(Seed.make(None, Noise(noise.mode, noise.generator)))
            if xp is not np and maker is Philox4x32:
                check_device(xp)
            _passed.add(key)


def check_generator(seed: Seed | None = None) -> None:
    """Known answers, moments, tails, serial correlation, repetitions and independence of the streams of `seed`'s noise.

    Raises `EngineError` with the first statistic that is off; a sound generator does so with probability at most 1e-9.
    """
    seed = seed or Seed.make(None)
    dtype = np.float64 if seed.noise.mode == LATTICE else np.float32
    _known_answers(seed.noise.generator, dtype)
    draws = np.empty((len(STREAMS), DRAWS), dtype)
    for row, (image, stage, purpose) in zip(draws, STREAMS, strict=True):
        seed.at(image).generator(Stream(stage, 0, purpose)).standard_normal(dtype=dtype, out=row)
    if not np.isfinite(draws).all():
        raise EngineError("noise generator: it draws NaN or infinite values; it is broken or replaced")
    for name, value, low, high in statistics(draws):
        if not low <= value <= high:
            raise EngineError(
                f"noise generator: {name} is {value:.5f}; expected {low:.5f} to {high:.5f}; it is broken or replaced"
            )
    _repeated_blocks(draws)
    _equal_streams(seed, dtype)
    _scale(seed, draws[0])


def check_device(xp: Any) -> None:
    """Raises `EngineError` unless Philox4x32 draws on the device of `xp` (CuPy) what it draws on the CPU, rounding
    aside."""
    for dtype in (np.float32, np.float64):
        seed, host, there = np.random.SeedSequence(secrets.randbits(128)), np.empty(4096, dtype), xp.empty(4096, dtype)
        for out in (host, there):
            Philox4x32(seed).standard_normal(dtype=dtype, out=out)
        if not np.allclose(xp.asnumpy(there), host, rtol=0, atol=1e-4):
            raise EngineError("noise generator: Philox4x32 draws other normals on the device; it is broken or replaced")


def statistics(draws: Draws) -> Iterator[Found]:
    """Statistics of independent streams [streams, n] of standard normals, with exact limits."""
    pool = np.sort(draws, axis=None)
    n, values = pool.size, pool.astype(np.float64)
    reach = float(special.ndtri(1 - _SHARE / 2) / np.sqrt(n))
    yield Found("mean", float(values.mean()), -reach, reach)
    power = float(values @ values) / n
    yield Found(
        "variance", power, *(2 * float(special.gammaincinv(n / 2, q)) / n for q in (_SHARE / 2, 1 - _SHARE / 2))
    )
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
    yield from _counts("share of a 64th of the values", inside, n, np.full(64, 1 / 64), _SHARE / 64)
    edges = np.array([2, 3, 3.5, 4, 5, 6])
    upper, lower = n - np.searchsorted(values, edges, side="right"), np.searchsorted(values, -edges)
    for side, beyond, sides in (("upper tail", upper, 1), ("lower tail", lower, 1), ("tails", upper + lower, 2)):
        yield from _counts(side, beyond, n, sides * special.ndtr(-edges), _SHARE / 18)
    yield from _agreements(draws)
    yield _repeats(pool)


def _bernstein(variance: float, n: int) -> float:
    """The mean of n terms of at most 1 and this variance exceeds the result with probability at most _SHARE / 2."""
    log = np.log(2 / _SHARE)
    return float((log / 3 + np.sqrt(log**2 / 9 + 2 * n * variance * log)) / n)


def _counts(name: str, counts: Draws, n: int, p: Draws, alpha: float) -> Iterator[Found]:
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
    while most * (np.log(most / mean) - 1) + mean < -np.log(_SHARE):
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
        limits = np.sqrt(2 * np.log(2 * count / _SHARE) * pairs)
        at = int(np.argmax(np.abs(sums) / limits))
        yield Found(
            f"serial correlation of {what}s", *(float(v / pairs[at]) for v in (sums[at], -limits[at], limits[at]))
        )
        both = signs @ signs.T / signs.shape[1]
        np.fill_diagonal(both, 0)
        high = float(np.sqrt(2 * np.log(2 * both.size / _SHARE) / signs.shape[1]))
        worst = both.flat[int(np.argmax(np.abs(both)))]
        yield Found(f"correlation of two streams' {what}s", float(worst), -high, high)


def _repeated_blocks(draws: Draws) -> None:
    """Raises where the same `WINDOW` values follow each other twice, in one stream or in two."""
    line = draws.ravel()
    if line.dtype == np.float32:
        bits = line.view(np.uint32).astype(np.uint64)
        words = bits[:-1] << np.uint64(32) | bits[1:]
    else:
        words = line.view(np.uint64)
    words = words[: line.size - WINDOW + 1]
    order = np.argsort(words)
    same = np.flatnonzero(words[order[1:]] == words[order[:-1]])
    first, second = order[same], order[same + 1]
    repeats = np.all([line[first + step] == line[second + step] for step in range(WINDOW)], axis=0)
    if repeats.any():
        at = int(np.argmax(repeats))
        where = " and ".join(
            f"value {i % DRAWS} of stream {i // DRAWS}" for i in sorted((int(first[at]), int(second[at])))
        )
        raise EngineError(f"noise generator: blocks repeat ({where} begin the same); it is broken or replaced")


def _equal_streams(seed: Seed, dtype: Any) -> None:
    """Raises where two of many streams (of several entropies, images, stages, levels and purposes) begin the same."""
    begun: dict[bytes, tuple[Any, ...]] = {}
    head = np.empty(WINDOW, dtype)
    for entropy in (seed.entropy, *(secrets.randbits(128) for _ in range(15))):
        for image, stage, level, purpose in _KEYS:
            generator = Seed(entropy, image, noise=seed.noise).generator(Stream(stage, level, purpose))
            generator.standard_normal(dtype=dtype, out=head)
            mine = (entropy, image, stage, level, purpose)
            other = begun.setdefault(head.tobytes(), mine)
            if other != mine:
                shown = " and ".join(f"{s}/{v}/{p} of image {i}" for _, i, s, v, p in (other, mine))
                raise EngineError(f"noise generator: two streams are equal ({shown}); it is broken or replaced")


def _scale(seed: Seed, normals: Draws) -> None:
    """Raises unless `add_noise` adds sigma times those normals, rounded to the lattice in that mode."""
    image, stage, purpose = STREAMS[0]
    sigma, rows, pixels = 0.5, 64, np.array([[[51 / STEPS, 1.0]]], np.float32)
    out = np.empty((rows, *pixels.shape), np.float32)
    add_noise(seed.at(image).generator(Stream(stage, 0, purpose)), pixels, sigma, out, seed.noise.mode)
    expected = pixels.astype(np.float64) + sigma * normals[: out.size].reshape(out.shape)
    if seed.noise.mode == LATTICE:
        expected = np.rint(expected * STEPS) / STEPS
    if not np.allclose(out, expected, rtol=0, atol=1e-6):
        raise EngineError("noise generator: what is added to images is not sigma times its normals: it was replaced")


def _known_answers(generator: str, dtype: Any) -> None:
    """Raises unless the generator draws what certificates that name it were drawn with. Rounding may differ."""
    expected = KNOWN.get((generator, np.dtype(dtype).char))
    if expected is not None:
        out = np.empty(4096, dtype)
        GENERATORS[generator](np.random.SeedSequence(2026, spawn_key=(1, 2, 3, 4))).standard_normal(
            dtype=dtype, out=out
        )
        found = (*out[:3].tolist(), float(out[-1]))
        if not np.allclose(found, expected, rtol=0, atol=1e-6):
            raise EngineError(
                f"noise generator: {generator} draws {found[0]:.7f}, {found[1]:.7f}, … from a known seed; expected "
                f"{expected[0]:.7f}, {expected[1]:.7f}, …; it is broken or replaced"
            )


def check_entropy() -> None:
    """Raises `EngineError` where the operating system's entropy repeats itself, or a bit of it is stuck or lopsided.

    A sound source does so with probability at most 1e-9.
    """
    drawn = [secrets.randbits(128) for _ in range(ENTROPIES)]
    if len(set(drawn)) < ENTROPIES:
        raise EngineError("entropy source: the operating system's random numbers repeat; it is broken or replaced")
    ones = np.array([sum(value >> bit & 1 for value in drawn) for bit in range(128)])
    low, high = limits(ENTROPIES, 0.5, _SHARE / 128)
    stuck = np.flatnonzero((ones < low) | (ones > high))
    if stuck.size:
        raise EngineError(
            f"entropy source: bit {stuck[0]} of the operating system's random numbers was 1 in {ones[stuck[0]]} of "
            f"{ENTROPIES} draws; it is broken or replaced"
        )
