"""The driver: full batches of many images, and results that do not depend on how they were packed."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.artefact import Artefact
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Budget, Fixed
from dualsmooth.runtime.statistics.certification import certification, checked_terms, settle
from dualsmooth.runtime.statistics.votes import Request, Requests, Stream, Tally

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

    def __init__(self, conditional: bool = False, fail_at: int = -1, lanes: int = 1) -> None:
        self.xp, self.lanes = np, Lanes(lanes)
        self.conditional, self.fail_at = conditional, fail_at
        self.batches: list[tuple[BaseModel, np.ndarray, float]] = []

    def takes_sigma(self, model: BaseModel) -> bool:
        return self.conditional

    def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
        if len(self.batches) == self.fail_at:
            raise EngineError("broken")
        self.batches.append((model, batch.copy(), sigma))
        return (batch[:, 0, 0, 0] > batch[:, 0, 0, 1]).astype(np.int64)

    def start(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> Started:
        return self.lanes.start(len(batch), lambda rows: self.votes(model, batch[rows], sigma, width))


def image(i: int) -> np.ndarray:
    return np.array([[[0.5 + 0.02 * i, 0.5]]], np.float32)


def jobs(count: int, budget: Budget, **options: bool) -> Iterator[Job]:
    terms = checked_terms(BUNDLE.sigmas, 0.5, 3, alpha=0.01, rule="interval", route=None, budget=budget)
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
    """Constant memory: never more than twice `in_flight` jobs ahead of what was handed out."""
    taken = 0

    def source() -> Iterator[Job]:
        nonlocal taken
        for job in jobs(50, Fixed(50, n0=10)):
            taken += 1
            yield job

    for done, _ in enumerate(Sampler(BUNDLE, FakeEngine(), batch_size=64, in_flight=4).run(source()), start=1):
        assert taken <= done + 8


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


class Unstable(FakeEngine):
    """Raises where a batch holds an image of value `bad`, as NaN logits are refused: FakeEngine's noise is far smaller
    than the distance between such values."""

    def __init__(self, bad: set[int], lanes: int = 1) -> None:
        super().__init__(lanes=lanes)
        self.bad = bad

    def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
        held = set((batch[:, 0, 0, 0] // 100).astype(int).tolist())
        if found := held & self.bad:
            raise EngineError(f"NaN for {min(found)}")
        return super().votes(model, batch % 100, sigma, width)


def far_apart(count: int, budget: Budget) -> list[Job]:
    """Images whose values tell from which job a row of a batch comes: image i is about 100 i."""
    found = list(jobs(count, budget))
    for i, job in enumerate(found):
        job.image = np.array([[[100 * i + 50.0, 100 * i + 50.0]]], np.float32)
    return found


@pytest.mark.parametrize("budget", [Fixed(300, n0=20), AtRadius(0.1, 400, n0=20)], ids=str)
@pytest.mark.parametrize(("size", "lanes", "ahead"), [(64, 1, True), (1000, 2, True), (64, 1, False)])
def test_a_failure_is_that_of_the_image_that_causes_it(budget: Budget, size: int, lanes: int, ahead: bool) -> None:
    wanted = [job.tally.to_dict() for job in Sampler(BUNDLE, Unstable(set())).run(far_apart(12, budget))]
    engine = Unstable({5, 9}, lanes)
    mixed, done = far_apart(12, budget), []
    with pytest.raises(EngineError, match="NaN for 5"):
        done.extend(Sampler(BUNDLE, engine, batch_size=size, ahead=ahead).run(mixed))
    assert [job.tally.to_dict() for job in done] == wanted[:5]
    sampler, served = Sampler(BUNDLE, engine, batch_size=size, fair=True, ahead=ahead), far_apart(12, budget)
    for job in served:  # as a server does
        sampler.add(job)
    while any(job.open and not job.failure for job in served):
        sampler.step()
    assert {i: str(job.failure) for i, job in enumerate(served) if job.failure} == {5: "NaN for 5", 9: "NaN for 9"}
    assert [served[i].tally.to_dict() for i in range(12) if i not in (5, 9)] == wanted[:5] + wanted[6:9] + wanted[10:]
    assert not sampler._queues
    sampler.close()


def test_a_failure_that_no_image_causes_is_that_of_its_batch() -> None:
    """Alone, each image of the batch has votes; that is no reason to trust an engine that failed."""

    class Once(FakeEngine):
        failed = False

        def votes(self, *args: Any) -> np.ndarray:
            if not self.failed:
                self.failed = True
                raise EngineError("broken")
            return super().votes(*args)

    sampler, mixed = Sampler(BUNDLE, Once(), batch_size=64), list(jobs(6, Fixed(300, n0=20)))
    for job in mixed:
        sampler.add(job)
    sampler.step()
    assert [bool(job.failure) for job in mixed] == [True, True, True, True, False, False]  # 64 rows, 20 each
    assert not any(job.tally.looks for job in mixed)
    while any(job.open and not job.failure for job in mixed):
        sampler.step()
    sampler.close()
    assert [job.tally.to_dict() for job in mixed[4:]] == run(6, Fixed(300, n0=20), 64, 8)[4:]


def test_noise_that_fails_takes_no_neighbour_with_it() -> None:
    class Repeats(Failing):
        def standard_normal(self, *, dtype: Any = None, out: Any) -> None:
            raise EngineError("two streams are equal")

    budget = Fixed(300, n0=20)
    wanted, mixed = run(6, budget, 64, 8), list(jobs(6, budget))
    for purpose in PURPOSES:
        mixed[3].generators[Stream("estimator", 0, purpose)] = Repeats(0)
    done = []
    with pytest.raises(EngineError, match="streams are equal"):
        done.extend(Sampler(BUNDLE, FakeEngine(), batch_size=64).run(mixed))
    assert [job.tally.to_dict() for job in done] == wanted[:3]
    assert not mixed[3].tally.looks


def test_decisions_fill_batches_together() -> None:
    """A decision asks for a dozen passes at a look: alone, that is a batch; in company, a batch holds many of them."""
    budget, sizes = AtRadius(0.1, 2000, n0=20), {}
    for in_flight in (1, 64):
        engine = FakeEngine()
        list(Sampler(BUNDLE, engine, batch_size=256, in_flight=in_flight).run(jobs(200, budget)))
        sizes[in_flight] = float(np.mean([len(batch) for _, batch, _ in engine.batches]))
    assert sizes[64] > 2 * sizes[1]


def test_results_wait_for_an_earlier_one_but_the_work_on_them_does_not() -> None:
    def slowly() -> Requests:
        for until in range(5, 500, 5):
            yield [Request(Stream("estimator", 0, "estimation"), until)]

    long = Job(image(0), Seed(1), Tally(3, 2), slowly())
    others = list(jobs(12, Fixed(50, n0=20)))
    first = next(Sampler(BUNDLE, FakeEngine(), batch_size=64, in_flight=4).run([long, *others]))
    assert first is long
    assert sum(job.open == 0 and bool(job.tally.looks) for job in others) == 7  # of twice `in_flight` in memory


def test_no_jobs_and_jobs_that_ask_for_nothing() -> None:
    sampler = Sampler(BUNDLE, FakeEngine())
    assert list(sampler.run([])) == []

    def nothing() -> Requests:
        yield []
        yield [Request(Stream("estimator", 0, "selection"), 0)]

    idle = [Job(image(0), Seed(1), Tally(3, 2), nothing()) for _ in range(3)]
    assert list(sampler.run(idle)) == idle


def one_by_one(job: Job) -> None:
    """The reference: each request of one job in a batch of its own, noise made where it is used."""
    engine = FakeEngine()
    for requests in job.requests:
        for stream, until in requests:
            before = job.tally.counts(stream)
            generator = job.generators.setdefault(stream, job.seed.generator(stream))
            batch = np.empty((until - int(before.sum()), 1, 1, 2), np.float32)
            sigma = 0.5 if stream.stage == "estimator" else BUNDLE.sigmas[stream.level]
            add_noise(generator, job.image, sigma, batch, job.seed.noise.mode)
            votes = engine.votes(BUNDLE.estimator, batch, sigma, len(before))
            job.tally.record(stream, before + np.bincount(votes, minlength=len(before)))


def text(job: Job, budget: Budget) -> str:
    terms = checked_terms(BUNDLE.sigmas, 0.5, 3, alpha=0.01, rule="interval", route=None, budget=budget)
    artefact = Artefact("0", {}, "fp32", "cpu", "fake", "0")
    return Certificate(settle(terms, job.tally), terms, job.tally, job.seed, artefact, "0").to_json()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dualsmooth-noise")]


@pytest.mark.parametrize("case", range(12))
def test_certificates_are_those_of_the_sequential_reference(case: int) -> None:
    rng = np.random.default_rng(case)
    budget = [Fixed(301, n0=20), Adaptive(900, n0=20), AtRadius(0.1, 500, n0=20)][case % 3]
    count, noise = int(rng.integers(1, 8)), Noise(generator=str(rng.choice(["SFC64", "Philox", "Philox4x32"])))

    def fresh() -> Iterator[Job]:
        for job in jobs(count, budget, all_levels=case % 2 == 0):
            job.seed = Seed.make(case, noise).at(job.seed.index)
            yield job

    expected = list(fresh())
    for job in expected:
        one_by_one(job)
    wanted = [text(job, budget) for job in expected]
    size, in_flight = int(rng.integers(1, 200)), int(rng.integers(1, 9))
    for ahead, lanes in product((True, False), (1, 3)):
        engine = FakeEngine(case % 4 == 0, lanes=lanes)
        sampler = Sampler(BUNDLE, engine, batch_size=size, in_flight=in_flight, ahead=ahead)
        assert [text(job, budget) for job in sampler.run(fresh())] == wanted


@pytest.mark.parametrize("case", range(8))
def test_jobs_that_come_and_go_leave_the_others_as_they_are(case: int) -> None:
    """Random schedules of add, step and drop: who stays has the reference's votes, who goes is counted no more."""
    rng, budget = np.random.default_rng(case), Fixed(400, n0=20)
    expected = list(jobs(8, budget))
    for job in expected:
        one_by_one(job)
    engine = FakeEngine(lanes=1 + case // 4)
    sampler = Sampler(BUNDLE, engine, batch_size=int(rng.integers(3, 120)), fair=case % 2 == 0)
    coming, inside, gone = list(jobs(8, budget)), [], []
    everyone = list(coming)
    while coming or any(job.open for job in inside):
        if coming and rng.random() < 0.3:
            inside.append(coming.pop())
            sampler.add(inside[-1])
        if inside and len(gone) < 4 and rng.random() < 0.1:
            job = inside.pop(int(rng.integers(len(inside))))
            sampler.drop(job)
            gone.append((job, job.tally.to_dict()))
        if any(job.open for job in inside):
            sampler.step()
    sampler.close()
    assert workers() == []
    for job, then in gone:
        assert job.tally.to_dict() == then
    left = [job for job in everyone if all(job is not other for other, _ in gone)]
    assert [text(job, budget) for job in left] == [text(expected[job.seed.index], budget) for job in left]


class Meeting(FakeEngine):
    """Each batch waits until the noise of a later one has been drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn, self.missed = threading.Event(), 0

    def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
        self.missed += not self.drawn.wait(0.2)
        self.drawn.clear()
        return super().votes(model, batch, sigma, width)


def test_noise_is_made_while_the_engine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, caller = Meeting(), threading.current_thread()

    def told(*args: Any, **options: Any) -> None:
        add_noise(*args, **options)
        if threading.current_thread() is not caller:
            engine.drawn.set()

    monkeypatch.setattr("dualsmooth.runtime.smoothing.sampler.add_noise", told)
    list(Sampler(BUNDLE, engine, batch_size=100).run(jobs(1, Fixed(1000, n0=20))))
    assert len(engine.batches) == 22
    assert engine.missed <= 4  # the two of selection votes, and the last of each stage


class Chained(FakeEngine):
    """The last part of each batch waits until a part of the next one runs."""

    def __init__(self) -> None:
        super().__init__(lanes=2)
        self.number, self.begun, self.missed = 0, [threading.Event() for _ in range(100)], 0

    def start(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> Started:
        number, self.number = self.number, self.number + 1

        def votes(rows: slice) -> np.ndarray:
            self.begun[number].set()
            if rows.stop == len(batch):
                self.missed += not self.begun[number + 1].wait(0.3)
            return self.votes(model, batch[rows], sigma, width)

        return self.lanes.start(len(batch), votes)


def test_the_engine_has_the_next_batch_before_it_ends_one() -> None:
    engine = Chained()
    list(Sampler(BUNDLE, engine, batch_size=100).run(jobs(1, Fixed(1000, n0=20))))
    assert engine.number == 19  # of 22: not those of selection votes, nor the first of the estimator's
    assert engine.missed <= 2  # the last of each stage


class Slow(FakeEngine):
    """Knows how many parts are running; the part `fail_at` fails."""

    running = begun = 0

    def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
        self.begun += 1
        number = self.begun
        self.running += 1
        time.sleep(0.02)
        self.running -= 1
        if number == self.fail_at:
            raise EngineError("broken")
        return np.zeros(len(batch), np.int64)


@pytest.mark.parametrize("lanes", [1, 2])
def test_nothing_runs_on_after_an_error(lanes: int) -> None:
    engine = Slow(fail_at=9, lanes=lanes)
    sampler = Sampler(BUNDLE, engine, batch_size=100)
    with pytest.raises(EngineError, match="broken"):
        list(sampler.run(jobs(3, Fixed(5_000))))
    assert engine.running == 0
    assert workers() == []
    begun = engine.begun
    time.sleep(0.05)
    assert engine.begun == begun


def test_nothing_runs_on_for_a_dropped_job() -> None:
    engine = Slow(lanes=2)
    sampler = Sampler(BUNDLE, engine, batch_size=100)
    (job,) = jobs(1, Fixed(100_000))
    sampler.add(job)
    for _ in range(3):
        sampler.step()
    sampler.drop(job)
    assert engine.running == 0
    begun = engine.begun
    time.sleep(0.05)
    assert engine.begun == begun
    sampler.close()


class Failing:
    """A generator that fails after some draws."""

    def __init__(self, good: int) -> None:
        self.good = good

    def standard_normal(self, *, dtype: Any = None, out: Any) -> None:
        self.good -= 1
        if self.good < 0:
            raise MemoryError("no room")
        out[...] = 0


@pytest.mark.parametrize("good", [0, 1, 3, 5])
def test_a_failure_on_the_worker_surfaces(good: int) -> None:
    (job,) = jobs(1, Fixed(1000, n0=20))
    for purpose in PURPOSES:
        job.generators |= {Stream(stage, 0, purpose): Failing(good) for stage in ("estimator", "classifier")}
        job.generators[Stream("classifier", 1, purpose)] = Failing(good)
    with pytest.raises(MemoryError):
        list(Sampler(BUNDLE, FakeEngine(), batch_size=100).run([job]))
    assert workers() == []
    assert job.open > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError("broken"), SystemExit])
def test_the_worker_ends_with_the_run(error: Any) -> None:
    class Stopping(FakeEngine):
        def votes(self, *args: Any) -> np.ndarray:
            if len(self.batches) == 4:
                raise error
            return super().votes(*args)

    with pytest.raises(BaseException, match=r"broken|^$"):
        list(Sampler(BUNDLE, Stopping(), batch_size=100).run(jobs(3, Fixed(100_000))))
    assert workers() == []


def test_the_worker_ends_when_nobody_wants_the_rest() -> None:
    run = Sampler(BUNDLE, FakeEngine(), batch_size=100, in_flight=3).run(jobs(9, Fixed(10_000)))
    next(run)
    assert len(workers()) == 1
    run.close()
    assert workers() == []
    run = Sampler(BUNDLE, FakeEngine(), batch_size=100, in_flight=3).run(jobs(9, Fixed(10_000)))
    next(run)
    del run
    assert workers() == []


def test_memory_is_constant_in_the_number_of_passes() -> None:
    class Forgetful(FakeEngine):
        def votes(self, model: BaseModel, batch: np.ndarray, sigma: float, width: int) -> np.ndarray:
            return (batch[:, 0, 0, 0] > batch[:, 0, 0, 1]).astype(np.int64)

    def peak(passes: int) -> int:
        tracemalloc.start()
        list(Sampler(BUNDLE, Forgetful(), batch_size=1000).run(jobs(1, Fixed(passes))))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1_000)
    assert peak(1_000_000) < peak(10_000) + 20_000


def test_who_watches_a_job_sees_every_vote_and_changes_none() -> None:
    """The counts so far, after every batch of the job's own; the last ones of each stream are those of the tally."""
    seen: dict[Stream, list[np.ndarray]] = {}
    watched = next(jobs(1, Fixed(300, n0=20)))
    watched.watch = lambda stream, counts, _: seen.setdefault(stream, []).append(counts)
    list(Sampler(BUNDLE, FakeEngine(), batch_size=64).run([watched]))
    assert [watched.tally.to_dict()] == run(1, Fixed(300, n0=20), 64, 1)
    assert seen.keys() == watched.tally.looks.keys()
    for stream, counts in seen.items():
        totals = [int(c.sum()) for c in counts]
        assert totals == sorted(set(totals))
        assert np.array_equal(counts[-1], watched.tally.counts(stream))
    assert max(len(counts) for counts in seen.values()) >= 300 // 64


def test_what_a_watcher_raises_ends_the_run() -> None:
    engine, watched = FakeEngine(), next(jobs(1, Fixed(300, n0=20)))

    def gone(stream: Stream, counts: np.ndarray, sure: np.ndarray | None) -> None:
        raise InterruptedError("nobody is there")

    watched.watch = gone
    with pytest.raises(InterruptedError):
        list(Sampler(BUNDLE, engine, batch_size=64, ahead=False).run([watched]))
    assert len(engine.batches) == 1
