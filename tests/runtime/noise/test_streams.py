"""Noise: replayable, independent streams of standard normals."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.streams import GENERATORS, Noise, Seed, add_noise, parse_noise, require_lattice
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 1, "estimation")


def draw(seed: Seed, stream: Stream, count: int) -> np.ndarray:
    return seed.generator(stream).standard_normal(count, dtype=np.float32)


def test_every_stream_of_every_image_is_different() -> None:
    """All pairs, down to single values: 24-bit mantissas make a chance repetition of 8 values in a row impossible."""
    streams = [
        (index, Stream(stage, level, purpose))
        for index, stage, level, purpose in product(
            (0, 1, 2**32, 2**40), ("estimator", "classifier"), (0, 1), ("selection", "estimation", "prediction")
        )
    ]
    heads = [tuple(draw(Seed(99, index), stream, 8)) for index, stream in streams]
    assert len(set(heads)) == len(streams)


def test_streams_are_uncorrelated() -> None:
    streams = [Stream("estimator", 0, p) for p in ("selection", "estimation")]
    streams += [Stream("classifier", s, p) for s in (0, 1) for p in ("selection", "estimation")]
    draws = [draw(Seed(5), stream, 40_000).astype(np.float64) for stream in streams]
    for a, b in combinations(draws, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(40_000)


def test_noise_is_standard_normal() -> None:
    draws = draw(Seed(6), STREAM, 200_000)
    assert stats.kstest(draws, "norm").pvalue > 1e-4
    assert abs((np.abs(draws) > 3).mean() / (2 * stats.norm.sf(3)) - 1) < 0.25


class Given:
    """In the place of MKL's state: normals that it is given."""

    def __init__(self, normals: np.ndarray) -> None:
        self.normals = normals

    def standard_normal(self, size: int) -> np.ndarray:
        drawn, self.normals = self.normals[:size], self.normals[size:]
        return drawn.copy()


def mkl(seed: int = 3) -> Any:
    pytest.importorskip("mkl_random", reason="needs the extra fast")
    return GENERATORS["MKL"](np.random.SeedSequence(seed))


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


def test_entropy_comes_from_the_system_unless_given() -> None:
    assert Seed.make(None).entropy != Seed.make(None).entropy
    assert not Seed.make(None).fixed
    assert Seed.make(7) == Seed(7, 0, fixed=True)
    assert Seed.make(np.int64(7)).entropy == 7


ALL = [
    Noise(mode, generator, shared)
    for mode, generator, shared in product(("float", "lattice"), sorted(GENERATORS), (False, True))
]


@pytest.mark.parametrize("noise", ALL, ids=str)
def test_noise_does_not_depend_on_how_it_is_cut(noise: Noise) -> None:
    """In rows of 9 and in rows longer than what is drawn at a time."""
    if noise.generator == "MKL":
        pytest.importorskip("mkl_random", reason="needs the extra fast")
    for side, count in ((3, 100), (210, 7)):
        image = np.full((1, side, side), 102 / 255, np.float32)
        whole = np.empty((count, 1, side, side), np.float32)
        seed = Seed(1, noise=noise)
        add_noise(seed.generator(STREAM), image, 0.25, whole, noise.mode)
        assert len(np.unique(whole[:, 0, 0, 0])) > 1
        for sizes in ([1] * count, [count // 3] * 3 + [count % 3], [count - 1, 1]):
            generator = seed.generator(STREAM)
            parts = [np.empty((size, 1, side, side), np.float32) for size in sizes]
            for part in parts:
                add_noise(generator, image, 0.25, part, noise.mode)
            assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("noise", ALL, ids=str)
def test_every_kind_of_noise_is_gaussian(noise: Noise) -> None:
    if noise.generator == "MKL":
        pytest.importorskip("mkl_random", reason="needs the extra fast")
    out = np.empty((300_000, 1, 1, 1), np.float32)
    add_noise(Seed(8, noise=noise).generator(STREAM), np.zeros((1, 1, 1), np.float32), 0.5, out, noise.mode)
    values = out.ravel().astype(np.float64) / 0.5
    if noise.mode == "lattice":
        steps = np.rint(values * 0.5 * 255)
        assert np.array_equal(out.ravel(), (steps / 255).astype(np.float32))
        kinds = np.clip(steps, -300, 300).astype(int) + 300
        ends = np.concatenate([[-np.inf], (np.arange(-299, 301) - 0.5) / (0.5 * 255), [np.inf]])
        assert stats.chisquare(np.bincount(kinds, minlength=601), np.diff(stats.norm.cdf(ends)) * 300_000).pvalue > 1e-4
    else:
        assert stats.kstest(values, "norm").pvalue > 1e-4


def test_shared_noise_is_the_same_for_all_images_and_levels_and_no_other() -> None:
    """Stages and purposes stay independent: what a bound rests on is never what chose it."""
    seed = Seed(4, noise=Noise(shared=True))
    heads = {}
    for index, stage, level, purpose in product(
        (0, 5), ("estimator", "classifier"), (0, 1), ("selection", "estimation", "prediction")
    ):
        out = np.empty(8, np.float32)
        seed.at(index).generator(Stream(stage, level, purpose)).standard_normal(dtype=np.float32, out=out)
        heads.setdefault((stage, purpose), set()).add(tuple(out))
    assert [len(kinds) for kinds in heads.values()] == [1] * 6
    assert len(set().union(*heads.values())) == 6


@pytest.mark.parametrize("text", ["float", "lattice", "float:philox", "lattice:mkl", "float:sfc64"])
def test_noise_has_a_short_name(text: str) -> None:
    assert str(parse_noise(text)) == text.removesuffix(":sfc64")
    assert parse_noise(str(parse_noise(text))) == parse_noise(text)


@pytest.mark.parametrize("text", ["", "double", "float:MT19937", "float:SFC64:x", "lattice (shared)", None, 3])
def test_unknown_noise_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="expected float or lattice"):
        parse_noise(text)


def test_the_lattice_is_that_of_eight_bit_images() -> None:
    every = (np.arange(256, dtype=np.uint8).reshape(1, 16, 16)).astype(np.float32) / np.float32(255)
    require_lattice(every)
    require_lattice((np.arange(256).reshape(1, 16, 16) / 255).astype(np.float32))
    for direction in (0, 1):
        moved = every.copy()
        moved[0, 3, 3] = np.nextafter(moved[0, 3, 3], np.float32(direction))
        with pytest.raises(InputError, match="1 values are off it"):
            require_lattice(moved)


def test_noise_is_added_to_the_image_at_the_right_scale() -> None:
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2)
    out = np.empty((20_000, 3, 2, 2), np.float32)
    add_noise(Seed(2).generator(STREAM), image, 0.25, out)
    assert np.allclose(out.mean(0), image, atol=5 * 0.25 / np.sqrt(20_000))
    assert np.allclose(out.std(0), 0.25, rtol=0.04)


@pytest.mark.parametrize("sigma", [0.12, 0.1, 0.25, 1e-46, 0.7])
def test_no_less_noise_is_added_than_stated(sigma: float) -> None:
    """float32(0.12) is below 0.12: radii in units of 0.12 would be too large, if by little."""
    one, out = np.ones((1, 1, 1), np.float32), np.empty((1, 1, 1, 1), np.float32)

    class Ones:
        def standard_normal(self, *, dtype: object = None, out: np.ndarray) -> None:
            out[...] = 1

    add_noise(Ones(), 0 * one, sigma, out)
    assert sigma <= float(out[0, 0, 0, 0]) <= sigma * (1 + 2**-23) + 2e-45


def test_noise_goes_into_a_part_of_a_batch_only() -> None:
    batch = np.full((10, 1, 1, 1), 9, np.float32)
    add_noise(Seed(3).generator(STREAM), np.zeros((1, 1, 1), np.float32), 0.1, batch[2:5])
    assert np.all(batch[:2] == 9)
    assert np.all(batch[2:5] != 9)
    assert np.all(batch[5:] == 9)


@pytest.mark.parametrize(
    "seed", [Seed(0), Seed(2**128 - 1, 2**40, fixed=True), Seed(12345, 17, noise=Noise("lattice", "Philox", True))]
)
def test_dictionary_round_trip(seed: Seed) -> None:
    assert Seed.from_dict(seed.to_dict()) == seed


def test_seeds_without_noise_are_of_the_first_version() -> None:
    old = {name: value for name, value in Seed(9).to_dict().items() if name not in ("noise", "shared")}
    assert Seed.from_dict(old) == Seed(9)


@pytest.mark.parametrize("seed", [-1, 2**128, 1.5, "7", True])
def test_unusable_seeds_are_refused(seed: object) -> None:
    with pytest.raises(InputError, match="expected"):
        Seed.make(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 2**63, 1.5, "0"])
def test_unusable_indices_are_refused(index: object) -> None:
    with pytest.raises(InputError, match="expected"):
        Seed.make(1).at(index)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"generator": "MT19937"},
        {"generator": None},
        {"entropy": "xyz"},
        {"entropy": 5},
        {"entropy": "f" * 33},
        {"entropy": "-1"},
        {"index": -1},
        {"index": None},
        {"index": 1 << 63},
        {"index": 1.5},
        {"index": "3"},
        {"fixed": "no"},
        {"noise": "double"},
        {"noise": None},
        {"shared": 1},
    ],
)
def test_damaged_seeds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CertificateError):
        Seed.from_dict({**Seed(1).to_dict(), **change})


@pytest.mark.parametrize("data", [None, 3, "seed", [], {}])
def test_things_that_are_no_seed_are_refused(data: object) -> None:
    with pytest.raises(CertificateError):
        Seed.from_dict(data)
