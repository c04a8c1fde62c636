"""Self-test of the noise: a broken or tampered generator, or a constant entropy source, issues no certificate.

Every statistic is compared with its exact distribution under sound noise, or with an inequality that holds for it;
nothing is asymptotic. A sound generator fails a test with probability at most `FALSE_ALARM`, all statistics together.
Motivation: Dahiya et al. 2024, "Machine Learning Needs Better Randomness Standards" (USENIX Security).
"""

from __future__ import annotations

import secrets
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise.add import FLOAT, MODES, add_noise
from dualsmooth.runtime.noise.forks import ForkLock
from dualsmooth.runtime.noise.generators import GENERATORS, Source
from dualsmooth.runtime.noise.measures import SHARE, bits, statistics
from dualsmooth.runtime.noise.streams import AUTO, Noise, Seed
from dualsmooth.runtime.noise.table import OPEN, STEPS, require_exact, table_of
from dualsmooth.runtime.statistics.binomial import limits
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream

DRAWS = 1 << 16
"""Normals of each of the `STREAMS` that are examined in full."""
WINDOW = 4
"""So many equal values in a row are a repeated block."""
ENTROPIES = 64
"""128-bit draws from the operating system that are examined."""

PARTS = ("SFC64", "Philox", "Generator", "SeedSequence")
"""Of NumPy, which normals are made of."""
STREAMS = tuple(product((0, 1), (ESTIMATOR, CLASSIFIER), (SELECTION, ESTIMATION)))
"""Image, stage and purpose of the streams that are examined in full."""
_KEYS = tuple(product(range(8), (ESTIMATOR, CLASSIFIER), range(4), (SELECTION, ESTIMATION)))
_PROBE = 0.5
"""Noise level of what is added to a test image."""
Draws = npt.NDArray[Any]
_lock = ForkLock()
_passed: set[tuple[object, ...]] = set()


def require_sound(noise: Noise, xp: Any = np) -> None:
    """Test the generator of `noise` and the entropy source, once a process for each mode, generator and array module.

    Raises `EngineError`. A generator, or a part of one, that is replaced later is tested again. `auto`: as `float`.
    """
    generator, mode = GENERATORS[noise.generator], FLOAT if noise.mode == AUTO else noise.mode
    key = (mode, generator.name, id(generator), *(getattr(np.random, name) for name in PARTS), id(xp))
    with _lock:
        if key not in _passed:
            check_entropy()
            check_generator(Seed.make(None, Noise(mode, generator.name)))
            if xp is not np and generator.on_device:
                check_device(Noise(mode, generator.name), xp)
            _passed.add(key)


def check_generator(seed: Seed | None = None) -> None:
    """Known answers, moments, tails, serial correlation, repetitions and independence of the streams of `seed`'s noise.

    Raises `EngineError` with the first statistic that is off; a sound generator does so with probability at most 1e-9.
    """
    seed = seed or Seed.make(None)
    dtype = np.dtype(MODES[seed.noise.mode].draws)
    _known_answers(seed.noise.generator, dtype)
    drawn = np.empty((len(STREAMS), DRAWS), dtype)
    for row, (image, stage, purpose) in zip(drawn, STREAMS, strict=True):
        _draw(seed.at(image).generator(Stream(stage, 0, purpose)), row)
    draws = drawn if dtype.kind == "f" else _normals(drawn)
    if not np.isfinite(draws).all():
        raise EngineError("noise generator: it draws NaN or infinite values; it is broken or replaced")
    for name, value, low, high in (*statistics(draws), *(() if dtype.kind == "f" else bits(drawn))):
        if not low <= value <= high:
            raise EngineError(
                f"noise generator: {name} is {value:.5f}; expected {low:.5f} to {high:.5f}; it is broken or replaced"
            )
    _repeated_blocks(draws)
    _equal_streams(seed, dtype)
    _scale(seed, drawn[0])


def check_device(noise: Noise, xp: Any) -> None:
    """Raises `EngineError` unless a generator draws on the device of `xp` (CuPy) what it draws on the CPU, rounding of
    normals aside."""
    generator, seed = GENERATORS[noise.generator], np.random.SeedSequence(secrets.randbits(128))
    if MODES[noise.mode].draws == np.uint64:
        made, image = np.empty((64, 1, 1, 1024), np.float32), np.full((1, 1, 1024), 51 / STEPS, np.float32)
        there = xp.empty(made.shape, np.float32)
        add_noise(Source(generator, seed), image, _PROBE, made, noise.mode)
        add_noise(Source(generator, seed), image, _PROBE, there, noise.mode, xp=xp)
        same = np.array_equal(xp.asnumpy(there), made)
    else:
        same = True
        for dtype in (np.float32, np.float64):
            host, there = np.empty(4096, dtype), xp.empty(4096, dtype)
            for out in (host, there):
                generator.normals(seed).standard_normal(dtype=dtype, out=out)
            same = same and np.allclose(xp.asnumpy(there), host, rtol=0, atol=1e-4)
    if not same:
        raise EngineError(
            f"noise generator: {generator.name} draws other noise on the device; it is broken or replaced"
        )


def _draw(source: Any, out: Draws) -> None:
    """Fill `out` with normals, or words, of a stream."""
    if out.dtype.kind == "f":
        source.standard_normal(dtype=out.dtype.type, out=out)
    else:
        out[:] = source.words(out.size)


def _normals(words: Draws) -> Draws:
    """Standard normals [streams, n] of uniform words, by the inverse; each quarter of a word decides in its turn."""
    shifts = (np.arange(words.shape[1]) % 4 * 16).astype(np.uint64)
    turned = words << shifts | words >> (np.uint64(64) - shifts) % np.uint64(64)
    return np.asarray(special.ndtri(((turned >> np.uint64(11)) + 0.5) * 2.0**-53))


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


def _equal_streams(seed: Seed, dtype: np.dtype[Any]) -> None:
    """Raises where two of many streams (of several entropies, images, stages, levels and purposes) begin the same."""
    begun: dict[bytes, tuple[Any, ...]] = {}
    head = np.empty(WINDOW, dtype)
    for entropy in (seed.entropy, *(secrets.randbits(128) for _ in range(15))):
        for image, stage, level, purpose in _KEYS:
            _draw(Seed(entropy, image, noise=seed.noise).generator(Stream(stage, level, purpose)), head)
            mine = (entropy, image, stage, level, purpose)
            other = begun.setdefault(head.tobytes(), mine)
            if other != mine:
                shown = " and ".join(f"{s}/{v}/{p} of image {i}" for _, i, s, v, p in (other, mine))
                raise EngineError(f"noise generator: two streams are equal ({shown}); it is broken or replaced")


def _scale(seed: Seed, drawn: Draws) -> None:
    """Raises unless `add_noise` adds sigma times those normals, rounded to the lattice in that mode, or what those
    words stand for."""
    image, stage, purpose = STREAMS[0]
    rows, pixels = 4096, np.array([[[51 / STEPS, 1.0, 0.0, 0.0]]], np.float32)
    out, mode = np.empty((rows, *pixels.shape), np.float32), MODES[seed.noise.mode]
    stream = Stream(stage, 0, purpose)
    add_noise(seed.at(image).generator(stream), pixels, _PROBE, out, mode.name)
    if mode.draws == np.uint64:
        steps = _steps(drawn[: out.size // 4], seed.at(image).generator(stream).rest.words(out.size))
        expected = pixels + steps.reshape(out.shape) / STEPS
    else:
        drawn = drawn[: out.size].reshape(out.shape)
        if mode.lattice:  # pixel and noise are rounded apart: a float32 pixel is a little off its point on the lattice
            expected = (np.rint(pixels * np.float64(STEPS)) + np.rint(STEPS * _PROBE * drawn)) / STEPS
        else:
            expected = pixels.astype(np.float64) + _PROBE * drawn
    if not np.allclose(out, expected, rtol=0, atol=1e-6):
        raise EngineError("noise generator: what is added to images is not sigma times its normals: it was replaced")


def _steps(words: Draws, rest: Draws) -> Draws:
    """What the quarters of `words` stand for, and words of `rest` where they leave it open, by table and bounds."""
    table = table_of(_PROBE)
    require_exact(table, _PROBE)
    steps = np.concatenate([table.values[words >> np.uint64(16 * i) & np.uint64(0xFFFF)][:, None] for i in range(4)], 1)
    still = steps == OPEN
    steps[still] = [table.first + int((table.bounds <= word).sum()) for word in rest[: still.sum()]]
    return steps


def _known_answers(name: str, dtype: np.dtype[Any]) -> None:
    """Raises unless the generator draws what certificates that name it were drawn with. Rounding may differ."""
    expected = GENERATORS[name].known.get(f"{dtype.kind}{dtype.itemsize}")
    if expected is not None:
        out = np.empty(4096, dtype)
        _draw(Source(GENERATORS[name], np.random.SeedSequence(2026, spawn_key=(1, 2, 3, 4))), out)
        if dtype.kind == "f":
            found = (*out[:3].tolist(), float(out[-1]))
            same = np.allclose(found, expected, rtol=0, atol=1e-6)
        else:
            found = (*out[:3].tolist(), int(out.sum()))
            same = found == expected
        if not same:
            raise EngineError(
                f"noise generator: {name} draws {found[0]:.9g}, {found[1]:.9g}, … from a known seed; expected "
                f"{expected[0]:.9g}, {expected[1]:.9g}, …; it is broken or replaced"
            )


def check_entropy() -> None:
    """Raises `EngineError` where the operating system's entropy repeats itself, or a bit of it is stuck or lopsided.

    A sound source does so with probability at most 1e-9.
    """
    drawn = [secrets.randbits(128) for _ in range(ENTROPIES)]
    if len(set(drawn)) < ENTROPIES:
        raise EngineError("entropy source: the operating system's random numbers repeat; it is broken or replaced")
    ones = np.array([sum(value >> bit & 1 for value in drawn) for bit in range(128)])
    low, high = limits(ENTROPIES, 0.5, SHARE / 128)
    stuck = np.flatnonzero((ones < low) | (ones > high))
    if stuck.size:
        raise EngineError(
            f"entropy source: bit {stuck[0]} of the operating system's random numbers was 1 in {ones[stuck[0]]} of "
            f"{ENTROPIES} draws; it is broken or replaced"
        )
