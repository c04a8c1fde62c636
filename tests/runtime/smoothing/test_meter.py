"""Seconds are an image's own: shares of batches, without the pauses of whoever reads the certificates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation import evaluate as evaluation
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.smoothing.meter import Meter, Turns
from dualsmooth.runtime.smoothing.sampler import Sampler
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.smoothing.smoother import Smoother

PASS = 1 / 1024


class Clock:
    """Stands still but for what is said to pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Image:
    seconds = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Each pass of a sampler takes `PASS` seconds of it."""
    clock, step = Clock(), Sampler.step

    def timed(sampler: Sampler) -> object:
        done = step(sampler)
        clock.now += PASS * sum(count for _, count in done)
        return done

    monkeypatch.setattr(Sampler, "step", timed)
    return clock


@pytest.fixture
def smoother(tmp_path: Path) -> Smoother:
    return ds.load(toys.two_levels(tmp_path / "bundle"), batch_size=64)


def images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 256, (count, 1, 1, 2), np.uint8))


def test_a_batch_is_shared_by_passes() -> None:
    clock = Clock()
    first, second, seen = Image(), Image(), []
    meter = Meter(clock, lambda one: seen.append((one.passes, one.seconds)))

    def batch(*shares: tuple[Image, int]) -> Callable[[], list[tuple[Image, int]]]:
        def work() -> list[tuple[Image, int]]:
            clock.now += 8.0
            return list(shares)

        return work

    meter.batch(batch((first, 30), (second, 10)))
    clock.now += 1000.0  # nobody works
    meter.batch(batch((second, 5)))
    assert (first.seconds, second.seconds) == (6.0, 10.0)
    assert seen == [(40, 8.0), (45, 16.0)]


@pytest.mark.parametrize("budget", [ds.Fixed(300), ds.Adaptive(2_000, 0.05)])
def test_an_image_is_charged_for_its_passes_and_for_no_pause(
    clock: Clock, smoother: Smoother, budget: ds.Budget
) -> None:
    """Every pass takes as long, so each image's seconds follow from its certificate, whatever it shared batches with
    and however long the reader pauses."""
    meter, waited = Meter(clock), []
    for certificate in smoother.certify_with(images(20), Settings.of(budget=budget, seed=1), meter=meter):
        waited.append((meter.last, certificate.passes * PASS))
        clock.now += 1000.0
    assert [seconds for seconds, _ in waited] == pytest.approx([own for _, own in waited], rel=1e-9)
    assert sum(own for _, own in waited) == pytest.approx(meter.seconds)
    assert meter.passes * PASS == pytest.approx(meter.seconds)


def test_results_state_the_image_s_own_seconds(
    clock: Clock, smoother: Smoother, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "Meter", partial(Meter, clock))
    x = np.stack(images(20))[:, 0]
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(20, np.int64))

    def pause(*_: object) -> None:
        clock.now += 1000.0

    out = tmp_path / "r.jsonl"
    evaluation.evaluate(smoother, load_dataset(f"npz:{tmp_path / 'd.npz'}"), out, indices=range(20), progress=pause)
    results = load_results(out)
    own = [result.certificate.passes * PASS for result in results]
    assert [result.seconds for result in results] == pytest.approx(own, abs=1e-6)


def test_requests_that_are_answered_side_by_side_share_the_time() -> None:
    clock = Clock()
    turns = Turns(clock)
    one = turns.begin()
    clock.now = 2.0
    other = turns.begin()
    clock.now = 6.0
    one.end()
    clock.now = 7.0
    other.end()
    assert (one.seconds, other.seconds) == (4.0, 3.0)  # 2 alone and half of 4; half of 4 and 1 alone
    clock.now = 100.0
    one.end()
    last = turns.begin()
    clock.now = 101.0
    last.end()
    assert (one.seconds, last.seconds) == (4.0, 1.0)
