"""The driver: full batches of many images, and results that do not depend on how they were packed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.runtime.budgets import Adaptive, AtRadius, Budget, Fixed
from dualsmooth.runtime.bundle import BaseModel, Bundle
from dualsmooth.runtime.certification import Requests, Terms, certification
from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise import Seed
from dualsmooth.runtime.sampler import Job, Sampler
from dualsmooth.runtime.votes import Request, Stream, Tally

BUNDLE = Bundle(
    path=Path("nowhere"),
    sigmas=(0.25, 0.5),
    sigma_e=0.5,
    classes=("a", "b", "c"),
    input_shape=(1, 1, 2),
    estimator=BaseModel(("e",)),
    classifiers=(BaseModel(("c",)), BaseModel(("c",))),
    precision="fp32",
    files={},
)
PURPOSES = ("selection", "estimation")


class FakeEngine:
    """Votes 0 or 1 by the sign of the first pixel minus the second; keeps a copy of every batch."""

    def __init__(self, conditional: bool = False, fail_at: int = -1) -> None:
        self.xp = np
        self.conditional, self.fail_at = conditional, fail_at
        self.batches: list[tuple[BaseModel, np.ndarray, float]] = []

    def takes_sigma(self, model: BaseModel) -> bool:
        return self.conditional

    def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
        if len(self.batches) == self.fail_at:
            raise EngineError("broken")
        self.batches.append((model, batch.copy(), sigma))
        return (batch[:, 0, 0, 0] > batch[:, 0, 0, 1]).astype(np.int64)


def image(i: int) -> np.ndarray:
    return np.array([[[0.5 + 0.02 * i, 0.5]]], np.float32)


def jobs(count: int, budget: Budget, **options: bool) -> Iterator[Job]:
    terms = Terms.checked(BUNDLE.sigmas, 0.5, 3, alpha=0.01, rule="interval", route=None, budget=budget)
    for i in range(count):
        tally = terms.tally()
        yield Job(image(i), Seed(42).at(i), tally, certification(terms, tally, **options))


def run(count: int, budget: Budget, batch_size: int, in_flight: int, **options: bool) -> list[dict[str, object]]:
    sampler = Sampler(BUNDLE, FakeEngine(), batch_size=batch_size, in_flight=in_flight)
    return [job.tally.to_dict() for job in sampler.run(jobs(count, budget, **options))]


@pytest.mark.parametrize("budget", [Fixed(300, n0=20), Adaptive(700, n0=20), AtRadius(0.1, 400, n0=20)], ids=str)
def test_counts_do_not_depend_on_packing(budget: Budget) -> None:
    alone = run(9, budget, 64, 1)
    for batch_size, in_flight in ((64, 4), (7, 3), (1000, 9), (64, 100)):
        assert run(9, budget, batch_size, in_flight) == alone


def test_counts_do_not_depend_on_neighbours_or_order() -> None:
    budget = Adaptive(700, n0=20)
    together = run(6, budget, 50, 6)
    for i in range(6):
        chosen = [job for k, job in enumerate(jobs(6, budget)) if k == i]
        (job,) = Sampler(BUNDLE, FakeEngine(), batch_size=50).run(chosen)
        assert job.tally.to_dict() == together[i]
    backwards = Sampler(BUNDLE, FakeEngine(), batch_size=50).run(list(jobs(6, budget))[::-1])
    assert [job.tally.to_dict() for job in backwards] == together[::-1]


def test_no_noise_is_used_twice() -> None:
    """Over all images, stages, levels and purposes, every standard normal that reaches the engine is drawn once."""
    engine = FakeEngine(conditional=True)
    list(Sampler(BUNDLE, engine, batch_size=64, in_flight=1).run(jobs(4, Fixed(100, n0=20), all_levels=True)))
    seen = []
    for _, batch, sigma in engine.batches:
        seen.append(np.round((batch[:, 0, 0, 1].astype(np.float64) - 0.5) / sigma, 5))
    values = np.concatenate(seen)
    assert len(values) == 4 * 3 * 120
    assert len(np.unique(values)) > len(values) - 10


def test_jobs_come_back_in_order_with_what_they_asked_for() -> None:
    sampler = Sampler(BUNDLE, FakeEngine(), batch_size=64, in_flight=5)
    done = list(sampler.run(jobs(20, Fixed(100, n0=10))))
    assert [job.seed.index for job in done] == list(range(20))
    for job in done:
        assert job.tally.passes(Stream("estimator", 0, "estimation")) == 100
        assert job.tally.passes(Stream("estimator", 0, "selection")) == 10


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_every_look_stays_as_it_was_taken(batch_size: int) -> None:
    """Counts are cumulative: later passes must not change what stood at an earlier look."""
    budget = Adaptive(1000, n0=20)
    for job in Sampler(BUNDLE, FakeEngine(), batch_size=batch_size).run(jobs(3, budget, all_levels=True)):
        for stream, looks in job.tally.looks.items():
            if stream.purpose == "estimation":
                assert [int(look.sum()) for look in looks] == list(budget.looks)
                assert all(np.all(a <= b) for a, b in pairwise(looks))


def test_batches_are_full_while_there_is_work() -> None:
    engine = FakeEngine()
    list(Sampler(BUNDLE, engine, batch_size=100, in_flight=32).run(jobs(64, Fixed(1000, n0=20))))
    sizes = np.array([len(batch) for _, batch, _ in engine.batches])
    assert sizes.max() == 100
    assert sizes.mean() > 95


@pytest.mark.parametrize("conditional", [False, True])
def test_only_conditional_networks_split_batches_by_sigma(conditional: bool) -> None:
    engine = FakeEngine(conditional)
    list(Sampler(BUNDLE, engine, batch_size=1000, in_flight=1).run(jobs(1, Fixed(100, n0=10), all_levels=True)))
    estimation = [sigma for model, batch, sigma in engine.batches if model.members == ("c",) and len(batch) >= 100]
    assert len(estimation) == (2 if conditional else 1)
    if conditional:
        assert sorted(estimation) == [0.25, 0.5]


def test_noise_has_the_sigma_of_its_level() -> None:
    engine = FakeEngine(conditional=True)
    list(Sampler(BUNDLE, engine, batch_size=4000, in_flight=1).run(jobs(1, Fixed(4000), all_levels=True)))
    for model, batch, sigma in engine.batches:
        if len(batch) == 4000:
            assert (batch[:, 0, 0, 1] - 0.5).std() == pytest.approx(sigma, rel=0.05)
            assert sigma == 0.5 or model.members == ("c",)


def test_jobs_are_taken_only_as_needed() -> None:
    """Constant memory: never more than `in_flight` jobs ahead of what was handed out."""
    taken = 0

    def source() -> Iterator[Job]:
        nonlocal taken
        for job in jobs(50, Fixed(50, n0=10)):
            taken += 1
            yield job

    for done, _ in enumerate(Sampler(BUNDLE, FakeEngine(), batch_size=64, in_flight=4).run(source()), start=1):
        assert taken <= done + 4


@pytest.mark.parametrize("fail_at", [0, 3, 10])
def test_a_failing_engine_ends_the_run(fail_at: int) -> None:
    engine = FakeEngine(fail_at=fail_at)
    sampler = Sampler(BUNDLE, engine, batch_size=64, in_flight=4)
    done: list[Job] = []
    with pytest.raises(EngineError):
        done.extend(sampler.run(jobs(10, Fixed(100, n0=10))))
    for job in done:
        assert job.tally.passes(Stream("estimator", 0, "estimation")) == 100
    engine.fail_at = -1
    again = [job.tally.to_dict() for job in sampler.run(jobs(10, Fixed(100, n0=10)))]
    assert again == run(10, Fixed(100, n0=10), 64, 4)


def test_no_jobs_and_jobs_that_ask_for_nothing() -> None:
    sampler = Sampler(BUNDLE, FakeEngine())
    assert list(sampler.run([])) == []

    def nothing() -> Requests:
        yield []
        yield [Request(Stream("estimator", 0, "selection"), 0)]

    idle = [Job(image(0), Seed(1), Tally(3, 2), nothing()) for _ in range(3)]
    assert list(sampler.run(idle)) == idle
