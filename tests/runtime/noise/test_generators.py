"""Generators: what each of them must do to be a row of the table, in every mode; and MKL's tails."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise import add, generators
from dualsmooth.runtime.noise.add import MODES, add_noise
from dualsmooth.runtime.noise.generators import GENERATORS, Source
from dualsmooth.runtime.noise.selftest import check_generator
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 1, "estimation")
KNOWN = np.random.SeedSequence(2026, spawn_key=(1, 2, 3, 4))
ALL = [Noise(mode, generator, shared) for mode, generator, shared in product(MODES, GENERATORS, (False, True))]


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    """Skip what needs a module that is not there."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    name = given["noise"].generator if "noise" in given else given.get("name")
    if name is not None and GENERATORS[name].needs:
        pytest.importorskip(GENERATORS[name].needs[0])


def added(source: Any, mode: str, count: int, side: int = 1, sigma: float = 0.5) -> np.ndarray:
    out = np.empty((count, 1, side, side), np.float32)
    add_noise(source, np.full((1, side, side), 102 / 255, np.float32), sigma, out, mode)
    return out


@pytest.mark.parametrize("name", GENERATORS)
def test_known_answers(name: str) -> None:
    """Of certificates that were issued: normals up to rounding, words to the bit."""
    known = GENERATORS[name].known
    words = Source(GENERATORS[name], KNOWN).words(4096)
    assert (*words[:3].tolist(), int(words.sum())) == known["u8"]
    for kind in ("f4", "f8"):
        out = np.empty(4096, kind)
        Source(GENERATORS[name], KNOWN).standard_normal(dtype=out.dtype, out=out)
        assert np.allclose((*out[:3], out[-1]), known[kind], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GENERATORS)
def test_moments_tails_and_independence(name: str) -> None:
    """The start-up test, for which sound noise fails once in a billion times, in every mode."""
    for mode in MODES:
        check_generator(Seed(1, noise=Noise(mode, name)))


@pytest.mark.parametrize("noise", ALL, ids=str)
def test_noise_does_not_depend_on_how_it_is_cut(noise: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows of 9 and in rows longer than what is drawn at a time; whatever is drawn at a time of a table."""
    seed = Seed(1, noise=noise)
    for side, count in ((3, 100), (210, 7)):
        whole = added(seed.generator(STREAM), noise.mode, count, side)
        assert len(np.unique(whole[:, 0, 0, 0])) > 1
        for sizes in ([1] * count, [count // 3] * 3 + [count % 3], [count - 1, 1]):
            generator = seed.generator(STREAM)
            parts = [added(generator, noise.mode, size, side) for size in sizes]
            assert np.array_equal(np.concatenate(parts), whole)
        for size in (1 << 8, 1 << 20):
            monkeypatch.setattr(add, "_BATCH", size)
            assert np.array_equal(added(seed.generator(STREAM), noise.mode, count, side), whole)


@pytest.mark.parametrize("noise", ALL, ids=str)
def test_every_kind_of_noise_is_gaussian(noise: Noise) -> None:
    out = added(Seed(8, noise=noise).generator(STREAM), noise.mode, 300_000)
    values = (out.ravel().astype(np.float64) - 102 / 255) / 0.5
    if noise.on_lattice:
        steps = np.rint(values * 0.5 * 255)
        assert np.array_equal(out.ravel(), ((steps + 102) / 255).astype(np.float32))
        kinds = np.clip(steps, -300, 300).astype(int) + 300
        ends = np.concatenate([[-np.inf], (np.arange(-299, 301) - 0.5) / (0.5 * 255), [np.inf]])
        assert stats.chisquare(np.bincount(kinds, minlength=601), np.diff(stats.norm.cdf(ends)) * 300_000).pvalue > 1e-4
    else:
        assert stats.kstest(values, "norm").pvalue > 1e-4


@pytest.mark.parametrize("name", GENERATORS)
def test_streams_and_their_rests_are_different_and_uncorrelated(name: str) -> None:
    """Words of all stages, levels and purposes of two images, and what settles what these leave open."""
    seed, found = Seed(5, noise=Noise("table", name)), []
    keys = product((0, 1), ("estimator", "classifier"), (0, 1), ("selection", "estimation", "prediction"))
    for index, stage, level, purpose in keys:
        source = seed.at(index).generator(Stream(stage, level, purpose))
        found += [source.words(4000), source.rest.words(4000)]
    assert len({words[0].item() for words in found}) == len(found) == 48
    for a, b in combinations([words / 2.0**64 for words in found], 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 6 / np.sqrt(4000)


@pytest.mark.parametrize("name", GENERATORS)
def test_normals_and_words_may_be_cut_anywhere(name: str) -> None:
    sizes = (1, 2, 3, 5, 7, 1, 400, 0, 81, 500)
    source = Source(GENERATORS[name], KNOWN)
    whole = Source(GENERATORS[name], KNOWN).words(sum(sizes))
    assert np.array_equal(np.concatenate([source.words(size) for size in sizes]), whole)


def test_what_is_not_installed_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"noise by mkl needs mkl_random; install it with pip install"):
        Seed(1, noise=Noise("table", "MKL")).require_generator()
    Seed(1).require_generator()


class Given:
    """In the place of MKL's state: normals that it is given."""

    def __init__(self, normals: np.ndarray) -> None:
        self.normals = normals

    def standard_normal(self, size: int) -> np.ndarray:
        drawn, self.normals = self.normals[:size], self.normals[size:]
        return drawn.copy()


def mkl(seed: int = 3) -> Any:
    pytest.importorskip("mkl_random", reason="needs the extra fast")
    return GENERATORS["MKL"].normals(np.random.SeedSequence(seed))


def test_tails_of_mkl_are_those_of_the_normal_distribution() -> None:
    """MKL has 32 bits and ends at 6.23: what it says of the tail is its side, and the rest is drawn anew."""
    near, far = np.linspace(-3.5, 3.5, 1001), np.repeat([4.0, -6.23], 200_000)
    generator, out = mkl(), np.empty(len(near) + len(far), np.float32)
    generator._state = Given(np.concatenate([near, far]))
    generator.standard_normal(dtype=np.float32, out=out)
    assert np.array_equal(out[:1001], near.astype(np.float32))
    for side, values in ((1, out[1001:201_001]), (-1, out[201_001:])):
        assert stats.kstest(side * values.astype(np.float64), stats.truncnorm(3.5, np.inf).cdf).pvalue > 1e-4
    beyond, share = int((np.abs(out[1001:]) > 6).sum()), stats.norm.sf(6) / stats.norm.sf(3.5)
    assert stats.binomtest(beyond, len(far), share).pvalue > 1e-4
    real = np.empty(1 << 22, np.float32)
    mkl().standard_normal(dtype=np.float32, out=real)
    assert stats.binomtest(int((np.abs(real) > 3.5).sum()), real.size, 2 * stats.norm.sf(3.5)).pvalue > 1e-4


def test_doubles_of_mkl_have_more_than_its_32_bits() -> None:
    """Phi(z) lies anywhere between the multiples of 2^-32, on which MKL's normals are."""
    out = np.empty(1 << 20)
    mkl().standard_normal(dtype=np.float64, out=out)
    between = np.mod(special.ndtr(out[np.abs(out) < 1.5]) * 2.0**32, 1)
    assert stats.kstest(between, "uniform").pvalue > 1e-4
    assert stats.kstest(out, "norm").pvalue > 1e-4
    single = mkl()._state.standard_normal(1 << 20)
    assert stats.kstest(np.mod(special.ndtr(single[np.abs(single) < 1.5]) * 2.0**32, 1), "uniform").pvalue < 1e-9
