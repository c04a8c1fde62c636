"""The self-test: sound generators pass, its limits are exact, and each statistic notices what it is there for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import count, product
from types import SimpleNamespace

import backdoors
import numpy as np
import pytest
from scipy import stats

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise import measures, selftest
from dualsmooth.runtime.noise.add import MODES
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.measures import statistics
from dualsmooth.runtime.noise.philox import Philox4x32
from dualsmooth.runtime.noise.selftest import check_entropy, check_generator, require_sound
from dualsmooth.runtime.noise.streams import Noise, Seed

DTYPES = {"float": np.float32, "lattice": np.float64}


@pytest.mark.parametrize("generator", sorted(GENERATORS))
@pytest.mark.parametrize("mode", MODES)
def test_sound_generators_pass(mode: str, generator: str) -> None:
    if generator == "MKL":
        pytest.importorskip("mkl_random")
    check_generator(Seed(1, noise=Noise(mode, generator)))


@pytest.mark.parametrize("mode", DTYPES)
def test_sound_noise_stays_far_from_every_limit(mode: str) -> None:
    """Mostly two thirds of the way to a limit at most, for five seeds: the limits are not met by luck."""
    for seed in range(5):
        draws = np.random.Generator(np.random.SFC64(seed)).standard_normal((8, selftest.DRAWS), DTYPES[mode])
        for name, value, low, high in statistics(draws):
            if "tail" not in name and low != 0:  # not where sound noise has a count of 0
                assert abs(value - (low + high) / 2) < 2 / 3 * (high - low) / 2, name


def test_limits_of_counts_are_exact() -> None:
    """The share of alpha outside the limits, by the binomial distribution itself."""
    n, p, alpha = 1000, np.array([0.5, 0.1, 1e-3]), 1e-6
    for probability in p:
        (found,) = measures.counts("x", np.array([n * probability]), n, np.array([probability]), alpha)
        low, high = round(found.low * n), round(found.high * n)
        outside = stats.binom.cdf(low - 1, n, probability) + stats.binom.sf(high, n, probability)
        assert outside <= alpha
        tighter = stats.binom.cdf(low, n, probability) + stats.binom.sf(high - 1, n, probability)
        assert tighter > alpha / 2


def test_limit_of_the_shapes_holds_and_is_not_idle() -> None:
    """Bernstein's bound against the exact tail of a scaled binomial of the same variance."""
    n = 4000
    high = measures._bernstein(1.0, n)
    exact = stats.binom.sf(int((high + 1) / 2 * n), n, 0.5)
    assert exact <= measures.SHARE / 2
    assert stats.binom.sf(int((0.9 * high + 1) / 2 * n), n, 0.5) > measures.SHARE / 2


def test_limit_of_repeated_values() -> None:
    """Chernoff's bound is above the exact Poisson quantile of the same mean, and within 3 % of it."""
    pool = np.arange(1 << 19, dtype=np.float32)
    found = measures._repeats(pool)
    exact = stats.poisson.isf(measures.SHARE, 2.0**37 * 2.0**-23)
    assert exact <= found.high < 1.03 * exact


def failing(draws: np.ndarray) -> str:
    names = [name for name, value, low, high in statistics(draws) if not low <= value <= high]
    return ", ".join(names)


Change = Callable[[np.ndarray], np.ndarray]
CHANGES: dict[str, tuple[str, Change]] = {
    "mean": ("mean", lambda z: z + 0.02),
    "1 % less sigma": ("variance", lambda z: z * 0.99),
    "skewness": ("skewness", lambda z: z + 0.01 * (z**2 - 1)),
    "kurtosis": ("kurtosis", lambda z: z + 0.01 * (z**3 - 3 * z)),
    "a gap": ("share of a 64th", lambda z: np.where(np.abs(z - 0.3) < 0.01, z + 0.03, z)),
    "no upper tail": ("upper tail", lambda z: np.where(z > 3.5, 3.4, z)),
    "no tails": ("tails", lambda z: np.clip(z, -3.99, 3.99)),
    "an outlier": ("lower tail", lambda z: np.where(np.arange(z.shape[1]) == 7, -7, z)),
    "half of the bits": ("repeated values", lambda z: np.round(z, 5)),
    "neighbours": ("serial correlation of signs", lambda z: (z + 0.05 * np.roll(z, 1, 1)) / np.hypot(1, 0.05)),
    "image to image": ("serial correlation of signs", lambda z: (z + 0.05 * np.roll(z, 3072, 1)) / np.hypot(1, 0.05)),
    "gusts": ("serial correlation of sizes", lambda z: np.sort(z.reshape(8, -1, 4), 2).reshape(8, -1)),
    "two streams": ("two streams' signs", lambda z: np.vstack([z[:7], 0.9 * z[7:] + np.sqrt(0.19) * z[:1]])),
}


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("change", CHANGES)
def test_each_statistic_notices_its_fault(mode: str, change: str) -> None:
    expected, alter = CHANGES[change]
    draws = np.random.Generator(np.random.SFC64(3)).standard_normal((8, selftest.DRAWS), DTYPES[mode])
    assert failing(draws) == ""
    assert expected in failing(alter(draws).astype(draws.dtype))


@pytest.mark.parametrize("mode", DTYPES)
def test_a_block_of_four_values_that_comes_twice_is_found(mode: str) -> None:
    """Anywhere, in one stream or in two; nothing else notices so small a fault. Three values may be chance."""
    for source, target in (((2, 77), (6, 1001)), ((5, 9), (5, 60_000))):
        draws = np.random.Generator(np.random.SFC64(4)).standard_normal((8, selftest.DRAWS), DTYPES[mode])
        for size in (3, 4):
            block = draws[source[0], source[1] : source[1] + size]
            draws[target[0], target[1] : target[1] + size] = block
            assert failing(draws) == ""
            if size == 3:
                selftest._repeated_blocks(draws)
        with pytest.raises(EngineError, match=rf"value {source[1]} of stream {source[0]} and value {target[1]} of"):
            selftest._repeated_blocks(draws)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backdoor", backdoors.ALL)
def test_backdoored_generators_are_refused(monkeypatch: pytest.MonkeyPatch, mode: str, backdoor: str) -> None:
    """Beyond the known answers, which all of these would fail too."""
    monkeypatch.setitem(GENERATORS, "SFC64", backdoors.ALL[backdoor])
    with pytest.raises(EngineError, match="known seed"):
        check_generator(Seed(1, noise=Noise(mode)))
    monkeypatch.setitem(GENERATORS, "SFC64", replace(backdoors.ALL[backdoor], known={}))
    with pytest.raises(EngineError, match="broken or replaced") as caught:
        check_generator(Seed(1, noise=Noise(mode)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_the_backdoor_itself_is_not_what_is_noticed(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The same machinery with unaltered words passes, known answers aside (it hands words out in another order)."""
    monkeypatch.setitem(GENERATORS, "SFC64", replace(backdoors.altered(backdoors.untouched), known={}))
    check_generator(Seed(1, noise=Noise(mode)))


def test_a_replaced_numpy_bit_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only our table: NumPy's own class, after a test that it passed."""
    require_sound(Noise())
    real = np.random.SFC64
    monkeypatch.setattr(np.random, "SFC64", lambda seed: real(1))
    with pytest.raises(EngineError):
        require_sound(Noise())
    monkeypatch.undo()
    require_sound(Noise())


def test_replaced_parts_of_numpy_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds that all become the same, normals that are too small: after a test that NumPy passed."""
    seeds, generator = np.random.SeedSequence, np.random.Generator

    class Small:
        def __init__(self, bits: object) -> None:
            self._real = generator(bits)

        def standard_normal(self, *, dtype: object, out: np.ndarray) -> None:
            self._real.standard_normal(dtype=dtype, out=out)
            out *= 0.9

    for name, fake in (("SeedSequence", lambda *_, **__: seeds(1)), ("Generator", Small)):
        require_sound(Noise())
        monkeypatch.setattr(np.random, name, fake)
        with pytest.raises(EngineError):
            require_sound(Noise())
        monkeypatch.undo()


def test_tested_once_a_process_for_each_mode_and_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[Noise] = []
    monkeypatch.setattr(selftest, "check_generator", lambda seed: tested.append(seed.noise))
    monkeypatch.setattr(selftest, "_passed", set())
    for noise in (Noise(), Noise(), Noise(shared=True), Noise("lattice"), Noise("lattice", "Philox"), Noise("lattice")):
        require_sound(noise)
    assert tested == [Noise(), Noise("lattice"), Noise("lattice", "Philox")]


def test_a_generator_that_failed_is_tested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATORS, "SFC64", backdoors.ALL["one stream"])
    for _ in range(2):
        with pytest.raises(EngineError):
            require_sound(Noise())


_numbers = count()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda bits: 4, "repeat"),
        (lambda bits: next(_numbers), "bit"),
        (lambda bits, real=secrets.randbits: real(bits) | 1 << 77, "bit 77"),
        (lambda bits, real=secrets.randbits: real(3), "repeat"),
    ],
    ids=["constant", "counter", "stuck bit", "three bits"],
)
def test_broken_entropy_is_refused(monkeypatch: pytest.MonkeyPatch, source: Callable[..., int], message: str) -> None:
    check_entropy()
    monkeypatch.setattr(secrets, "randbits", source)
    with pytest.raises(EngineError, match=message):
        check_entropy()


def test_known_answers_are_stated_for_every_generator() -> None:
    assert {(name, kind) for name, g in GENERATORS.items() for kind in g.known} == set(
        product(GENERATORS, ("f4", "f8", "u8"))
    )


def test_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nan:
        def standard_normal(self, *, dtype: object, out: np.ndarray) -> None:
            out[:] = np.nan

    monkeypatch.setitem(GENERATORS, "SFC64", replace(GENERATORS["SFC64"], normals=lambda seed: Nan(), known={}))
    with pytest.raises(EngineError, match="NaN"):
        check_generator(Seed(1))


@pytest.mark.parametrize("mode", MODES)
def test_noise_of_another_scale_is_refused(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Sound normals, but what is added to images is not sigma times them."""
    real = selftest.add_noise
    monkeypatch.setattr(selftest, "add_noise", lambda g, image, sigma, out, m: real(g, image, 0.98 * sigma, out, m))
    with pytest.raises(EngineError, match="not sigma times"):
        check_generator(Seed(1, noise=Noise(mode)))


@pytest.mark.parametrize(("generator", "seed"), [("SFC64", 521), ("SFC64", 1572), ("Philox", 370), ("Philox", 3218)])
def test_noise_near_a_half_of_the_lattice_passes(generator: str, seed: int) -> None:
    """These seeds draw a z with 255 sigma z nearer to a half than the pixel, 51/255 as a float32, is to its point."""
    check_generator(Seed.make(seed, Noise("lattice", generator)))


class Device:
    """An array of another library: Philox4x32 fills it through `kernel`, here NumPy's own."""

    def __init__(self, size: int, dtype: type) -> None:
        self.values = np.empty(size, dtype)


@pytest.mark.parametrize("error", [0.0, 1e-6, 0.01])
def test_a_device_that_draws_other_normals_is_refused(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    """The CPU's stream is the reference; the last bits may differ."""
    real = Philox4x32.standard_normal

    def fill(self: Philox4x32, *, dtype: type, out: object) -> None:
        if isinstance(out, Device):
            real(self, dtype=dtype, out=out.values)
            out.values[-1] += error
        else:
            real(self, dtype=dtype, out=out)

    monkeypatch.setattr(Philox4x32, "standard_normal", fill)
    xp = SimpleNamespace(empty=Device, asnumpy=lambda array: array.values)
    monkeypatch.setattr(selftest, "_passed", set())
    if error > 1e-4:
        with pytest.raises(EngineError, match="on the device"):
            require_sound(Noise(generator="Philox4x32"), xp)
        require_sound(Noise(generator="Philox4x32"))
    else:
        require_sound(Noise(generator="Philox4x32"), xp)
    require_sound(Noise(), xp)  # drawn on the CPU in any case
