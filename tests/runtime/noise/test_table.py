"""Lattice noise by table: its law to 2^-53, tails and all; what is drawn; and tables that are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.noise import selftest, table
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.selftest import check_generator
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.noise.table import ENTRIES, OPEN, STEPS, Table, masses, require_exact, table_of
from dualsmooth.runtime.statistics.votes import Stream

mpmath = pytest.importorskip("mpmath")
STREAM = Stream("classifier", 1, "estimation")
SIGMAS = (1e-5, 3e-4, 0.002, 0.05, 0.12, 0.25, 0.5, 1.0, 2.0, 5.0)


def gaussian(sigma: float, ends: list[float]) -> list[Any]:
    """Phi(-end / s), s = 255 sigma, to some 80 digits."""
    s = STEPS * mpmath.mpf(sigma)
    return [mpmath.erfc(mpmath.mpf(end) / s / mpmath.sqrt(2)) / 2 for end in ends]


def exact_law(made: Table) -> list[Any]:
    """What the table draws with probability, as its arrays say, in exact arithmetic; k = first, first + 1, …"""
    counts = np.bincount(made.values[made.values != OPEN].astype(int) - made.first, minlength=len(made.bounds) + 1)
    ends = [0, *made.bounds.tolist(), 1 << 64]
    still = ENTRIES - int(counts.sum())
    unit = mpmath.mpf(1) / ENTRIES
    return [
        unit * (count + mpmath.mpf(still * (high - low)) / 2**64)
        for count, (low, high) in zip(counts.tolist(), pairwise(ends), strict=True)
    ]


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mpmath.workdps(80):
        yield


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_law_is_the_rounded_gaussians(sigma: float) -> None:
    """Total variation at most 2^-53, and so are the tails beyond 8 sigma, in their own measure."""
    made = table_of(sigma)
    law, reach = exact_law(made)[-made.first :], -made.first
    above = gaussian(sigma, [k + 0.5 for k in range(reach + 1)])
    expected = [1 - 2 * above[0], *(a - b for a, b in pairwise(above))]
    lower = exact_law(made)[: reach + 1][::-1]
    variation = (sum(abs(p - q) for p, q in zip(law, expected, strict=True)) + above[-1]) / 2
    variation += (sum(abs(p - q) for p, q in zip(lower[1:], expected[1:], strict=True)) + above[-1]) / 2
    assert variation <= mpmath.mpf(2) ** -53
    far = int(8 * STEPS * sigma) + 1
    if far <= reach:
        assert abs(sum(law[far:]) / (above[far - 1]) - 1) < 1e-3
        assert sum(law[far:]) > 0


def test_masses_are_exact_far_beyond_what_is_drawn() -> None:
    """Relatively, at every k: to 2^-90, but for what lies beyond ten sigma."""
    for sigma in (3e-4, 0.002, 0.05, 0.5):
        found = masses(sigma)
        above = gaussian(sigma, [k + 0.5 for k in range(len(found))])
        expected = [1 - 2 * above[0], *(a - b for a, b in pairwise(above))]
        whole = 2 * sum(found) - found[0]
        inside = 1 - 2 * above[-1]
        assert max(abs(mpmath.mpf(m) / whole * inside / p - 1) for m, p in zip(found, expected, strict=True)) < 2**-90


@pytest.mark.parametrize("sigma", [0.002, 0.25, 2.0])
def test_the_guide_says_what_the_bounds_say(sigma: float) -> None:
    """At every bound, beside it, at both ends of every entry of the guide, and between."""
    made = table_of(sigma)
    starts = np.arange(ENTRIES, dtype=np.uint64) << np.uint64(48)
    random = np.random.default_rng(1).integers(0, 1 << 64, 100_000, np.uint64)
    one = np.uint64(1)
    words = np.concatenate([made.bounds, made.bounds - one, made.bounds + one, starts, starts - one, random])
    expected = np.searchsorted(made.bounds, words, side="right") + made.first
    assert np.array_equal(made._settled(words, np), expected)
    assert (made.guide == OPEN).mean() < 0.2


@pytest.mark.parametrize("sigma", [0.002, 0.12, 1.0])
def test_draws_follow_the_law(sigma: float) -> None:
    """Chi-square over all k that are expected five times; among them those that open entries alone say."""
    out = np.empty((1 << 21, 1, 1, 4), np.float32)
    add_noise(Seed(3, noise=Noise("table")).generator(STREAM), np.zeros((1, 1, 4), np.float32), sigma, out, "table")
    made = table_of(sigma)
    expected = table.law(made) * out.size
    seen = np.bincount(np.rint(out.ravel() * 255).astype(int) - made.first, minlength=len(expected))
    often = expected >= 5
    grouped = [np.append(values[often], values[~often].sum()) for values in (seen, expected)]
    assert stats.chisquare(*(g[grouped[1] > 0] for g in grouped)).pvalue > 1e-4
    alone = often & (expected < out.size / ENTRIES)
    assert sigma < 0.01 or alone.sum() > 20


def test_every_bit_of_an_entry_counts() -> None:
    """All 65,536 entries, each in each quarter of a word, say what the table says."""
    made = table_of(0.25)
    entries = np.arange(ENTRIES, dtype=np.uint16)
    found = made.draw(entries, lambda count: np.zeros(count, np.uint64))
    expected = np.where(made.values == OPEN, made.first + (made.bounds == 0).sum(), made.values)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["SFC64", "Philox", "Philox4x32"])
def test_noise_is_what_the_specification_says(name: str) -> None:
    """docs/certificate.md, How k is drawn, once more from the error function: certificates are replayed by it."""
    sigma, rows, size = 0.25, 3000, 5
    s = STEPS * mpmath.mpf(sigma)
    reach = int(mpmath.floor(10 * s + 0.5))
    above = gaussian(sigma, [k + 0.5 for k in range(reach + 1)])
    half = [a - b for a, b in pairwise(above)]
    p = [*half[::-1], 1 - 2 * above[0], *half]
    p = [ENTRIES * share / sum(p) for share in p]
    entries = [k - reach for k, share in enumerate(p) for _ in range(int(mpmath.floor(share)))]
    left = [share - mpmath.floor(share) for share in p]
    bounds = [int(mpmath.floor(2**64 * sum(left[: j + 1]) / sum(left))) for j in range(len(p) - 1)]
    seed = Seed(3, noise=Noise("table", name)).bound("an image", "a bundle")
    key = np.random.SeedSequence(seed.key(), spawn_key=(1, 1, 1))
    words = iter(GENERATORS[name].words(key).words(rows * 2).tolist())
    rest = iter(
        GENERATORS[name].words(np.random.SeedSequence(seed.key(), spawn_key=(1, 1, 1, 1919251316))).words(rows).tolist()
    )
    expected, still = [], 0
    for _ in range(rows):
        pair = (next(words), next(words))
        for i in range(size):
            entry = pair[i // 4] >> 16 * (i % 4) & 0xFFFF
            if entry < len(entries):
                expected.append(entries[entry])
            else:
                word, still = next(rest), still + 1
                expected.append(sum(bound <= word for bound in bounds) - reach)
    out = np.empty((rows, 1, 1, size), np.float32)
    add_noise(seed.generator(STREAM), np.full((1, 1, size), 0.2, np.float32), sigma, out, "table")
    assert still > 20
    assert np.array_equal(out.ravel(), ((np.array(expected) + 51) / 255).astype(np.float32))


BREAK: dict[str, Callable[[Table], Table]] = {
    "an entry off by one": lambda t: replace(t, values=np.concatenate([t.values[:40_000], t.values[40_000:] + 1])),
    "one entry": lambda t: replace(t, values=np.where(np.arange(ENTRIES) == 30_000, t.values + 1, t.values)),
    "an open entry is settled": lambda t: replace(t, values=np.where(np.arange(ENTRIES) == 65_535, 0, t.values)),
    "another sigma": lambda t: table_of(0.501),
    "no tails": lambda t: replace(t, bounds=np.where(np.arange(len(t.bounds)) < 300, 0, t.bounds).astype(np.uint64)),
    "shifted": lambda t: replace(t, first=t.first + 1),
}


@pytest.mark.parametrize("how", BREAK)
def test_broken_tables_are_noticed(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their own check, and so by the start-up test."""
    broken = BREAK[how](table_of(0.5))
    with pytest.raises(EngineError, match=r"at sigma 0.5 it is not that of the normal distribution"):
        require_exact(broken, 0.5)
    monkeypatch.setattr(selftest, "table_of", lambda sigma: broken)
    with pytest.raises(EngineError, match="not that of the normal distribution"):
        check_generator(Seed(1, noise=Noise("table")))


def test_what_is_open_must_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_settled", lambda self, words, xp: np.zeros(len(words), np.int16))
    with pytest.raises(EngineError, match="not sigma times"):
        check_generator(Seed(1, noise=Noise("table")))


def test_what_is_open_must_be_drawn_by_words_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by words that chose entries before."""
    real = Table.draw
    monkeypatch.setattr(Table, "draw", lambda self, bits, words, *rest: real(self, bits, other_words, *rest))
    with pytest.raises(EngineError, match="not sigma times"):
        check_generator(Seed(1, noise=Noise("table")))


def other_words(count: int) -> Any:
    return GENERATORS["SFC64"].words(np.random.SeedSequence(1)).words(count)


def test_levels_that_no_table_has_are_refused() -> None:
    table_of(5.0)
    with pytest.raises(InputError, match=r"levels up to 5, not 5\.1; use lattice or float"):
        table_of(5.1)


def test_tables_cannot_be_written_to() -> None:
    for array in (table_of(0.5).values, table_of(0.5).bounds, table_of(0.5).guide):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
