"""Noise: replayable, independent streams of standard normals."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.add import add_noise, require_lattice
from dualsmooth.runtime.noise.streams import Noise, Seed, parse_noise
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 1, "estimation")


def draw(seed: Seed, stream: Stream, count: int) -> np.ndarray:
    out = np.empty(count, np.float32)
    seed.generator(stream).standard_normal(dtype=np.float32, out=out)
    return out


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


def test_entropy_comes_from_the_system_unless_given() -> None:
    assert Seed.make(None).entropy != Seed.make(None).entropy
    assert not Seed.make(None).fixed
    assert Seed.make(7) == Seed(7, 0, fixed=True)
    assert Seed.make(np.int64(7)).entropy == 7


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


@pytest.mark.parametrize("text", ["auto", "float", "lattice", "table", "float:philox", "lattice:mkl", "table:sfc64"])
def test_noise_has_a_short_name(text: str) -> None:
    assert str(parse_noise(text)) == text.removesuffix(":sfc64")
    assert parse_noise(str(parse_noise(text))) == parse_noise(text)


@pytest.mark.parametrize("text", ["", "double", "float:MT19937", "float:SFC64:x", "lattice (shared)", None, 3])
def test_unknown_noise_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="expected auto, float, lattice or table"):
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


def test_a_certificate_says_which_noise_it_was() -> None:
    """`auto` is a question."""
    asked = Seed(1, noise=Noise("auto"))
    with pytest.raises(CertificateError, match="seed must hold"):
        Seed.from_dict(asked.to_dict())
    pixels = np.array([0, 51 / 255, 1], np.float32)
    assert asked.suited(pixels, [0.5]).noise == Noise("table")
    assert asked.suited(pixels + np.float32(1e-4), [0.5]).noise == Noise("float")
    assert asked.suited(pixels, [0.5, 5.1]).noise == Noise("float")
    assert Seed(1, noise=Noise("lattice")).suited(pixels, [0.5]).noise == Noise("lattice")


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
