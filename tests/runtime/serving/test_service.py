"""`ds.Service`: a smoother's answers for threads and coroutines; limits, cancellation, health, metrics, closing."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import toys
from gate import Gate

import dualsmooth as ds
from dualsmooth.runtime.serving.metrics import GAUGES, METRICS
from dualsmooth.runtime.serving.protocol import GoingDown, OverTime, ServerFull
from dualsmooth.runtime.serving.replies import Promised

IMAGES = [toys.image(0.5 + i / 40, 0.3 + i / 20) for i in range(8)]
BUDGET, LONG = ds.Fixed(400, n0=20), ds.Fixed(500_000)
OPEN = ds.Limits(allow_seed=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.two_levels(tmp_path_factory.mktemp("service") / "bundle", classifier_cuts=(0.5, 0.4))


@pytest.fixture
def smoother(bundle: Path) -> ds.Smoother:
    return ds.load(bundle, threads=1)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_threads_get_what_the_smoother_gives(smoother: ds.Smoother) -> None:
    alone = [smoother.certify(image, budget=BUDGET, seed=i, rule="paper") for i, image in enumerate(IMAGES)]
    label = smoother.predict(IMAGES[0], n=200, seed=3)
    with ds.Service(smoother, OPEN) as service, ThreadPoolExecutor(8) as threads:
        made = threads.map(
            lambda i: service.certify(IMAGES[i], budget=BUDGET, seed=i, rule="paper"), range(len(IMAGES))
        )
        assert [c.to_json() for c in made] == [c.to_json() for c in alone]
        assert service.predict(IMAGES[0], n=200, seed=3) == label


def test_coroutines_get_what_the_smoother_gives(smoother: ds.Smoother) -> None:
    noise = ds.Noise("float", "Philox")
    alone = [smoother.certify(image, budget=BUDGET, seed=i, noise=noise) for i, image in enumerate(IMAGES)]

    async def ask() -> list[ds.Certificate]:
        asked = (service.certify_async(image, budget=BUDGET, seed=i, noise=noise) for i, image in enumerate(IMAGES))
        assert await service.predict_async(IMAGES[0], n=200, seed=3) == label
        return list(await asyncio.gather(*asked))

    label = smoother.predict(IMAGES[0], n=200, seed=3)
    with ds.Service(smoother, OPEN) as service:
        assert [c.to_json() for c in asyncio.run(ask())] == [c.to_json() for c in alone]


def test_images_are_what_the_smoother_takes(smoother: ds.Smoother, tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(np.array([[150, 90]], np.uint8))
    picture.save(tmp_path / "a.png")
    with ds.Service(smoother, OPEN) as service:
        for image in (picture, tmp_path / "a.png", str(tmp_path / "a.png"), np.array(picture)):
            alone = smoother.certify(image, budget=BUDGET, seed=1).to_json()
            assert service.certify(image, budget=BUDGET, seed=1).to_json() == alone


COARSER: list[dict[str, Any]] = [{"groups": True}, {"groups": {"right": ["class 1", 2]}}, {"at_most": 2}]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A bundle with groups, and an image on the border of two of its three classes."""
    path = tmp_path_factory.mktemp("groups") / "bundle"
    toys.write_bundle(path, sigmas=(0.25, 0.26), sigma_e=0.25, estimator_cuts=[2.0], classifier_cuts=[[0.0, 1.0]] * 2)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"groups": {"right": [1, 2]}}))
    return path, toys.image(1.0, 0.5)


@pytest.mark.parametrize("asked", COARSER)
def test_groups_and_sets_answer_as_those_of_the_smoother(torn: tuple[Path, np.ndarray], asked: dict[str, Any]) -> None:
    path, image = torn
    with ds.load(path, threads=1) as smoother, ds.Service(smoother, OPEN) as service:
        alone = smoother.certify(image, budget=BUDGET, seed=2, **asked)
        said = smoother.predict(image, n=400, seed=2, **asked)
        assert (alone.answer, said.answer) == ((1, 2), (1, 2))

        async def ask() -> tuple[ds.Certificate, ds.Prediction]:
            return (
                await service.certify_async(image, budget=BUDGET, seed=2, **asked),
                await service.predict_async(image, n=400, seed=2, **asked),
            )

        for made in (service.certify(image, budget=BUDGET, seed=2, **asked), asyncio.run(ask())[0]):
            assert made.to_json() == alone.to_json()
        assert [service.predict(image, n=400, seed=2, **asked), asyncio.run(ask())[1]] == [said, said]


@pytest.mark.parametrize("asked", [{"mode": "quick"}, {"mode": "decide", "r": 0.05}])
def test_modes_are_the_budgets_of_the_smoother(smoother: ds.Smoother, asked: dict[str, Any]) -> None:
    alone = smoother.certify(IMAGES[0], seed=1, **asked)
    assert alone.terms.budget != ds.Fixed(10_000)
    with ds.Service(smoother, OPEN) as service:
        assert service.certify(IMAGES[0], seed=1, **asked).to_json() == alone.to_json()
        assert asyncio.run(service.certify_async(IMAGES[0], seed=1, **asked)).to_json() == alone.to_json()


def test_it_takes_what_a_smoother_takes() -> None:
    """A keyword of `certify` and `predict` that a service lacks would be a feature that servers lack."""
    for name, more in {
        "certify": {"timeout"},
        "predict": {"timeout"},
        "certify_async": set(),
        "predict_async": set(),
    }.items():
        ours = inspect.signature(getattr(ds.Service, name)).parameters
        theirs = inspect.signature(getattr(ds.Smoother, name.removesuffix("_async"))).parameters
        assert set(ours) == set(theirs) | more
        assert all(ours[key].default == theirs[key].default for key in theirs)


def test_callers_share_batches(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(smoother, monkeypatch)
    with ds.Service(smoother) as service, ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(service.certify, image, budget=ds.Fixed(60, n0=20)) for image in IMAGES[:4]]
        wait_for(lambda: sum(service.metrics()[name] for name in GAUGES) == 4)
        gate.open()
        assert all(future.result(60) for future in asked)
    assert max(gate.sizes) > 60  # one caller alone never fills so much of a batch


def test_bad_requests_have_the_lines_of_the_smoother(smoother: ds.Smoother) -> None:
    with ds.Service(smoother, ds.Limits(max_passes=10_000)) as service:
        wrong: list[dict[str, Any]] = [
            {"alpha": 2.0}, {"rule": "no"}, {"noise": 3}, {"image": IMAGES[0][..., :1]}, {"groups": True},
            {"groups": 3}, {"groups": {"a": [0]}}, {"at_most": 0}, {"mode": "quick"},
            {"mode": "fast", "budget": None}, {"mode": "decide", "budget": None}, {"r": 0.5},
        ]  # fmt: skip
        for asked in wrong:
            given = {"image": IMAGES[0], "budget": BUDGET} | asked
            with pytest.raises(ds.InputError) as ours:
                service.certify(**given)
            with pytest.raises(ds.InputError) as local:
                smoother.certify(**given)
            assert str(ours.value) == str(local.value)
        with pytest.raises(ds.InputError, match=r"may take \d+ passes; expected at most 10000"):
            service.certify(IMAGES[0], budget=LONG)
        with pytest.raises(ds.InputError, match="chooses its own seeds"):
            asyncio.run(service.certify_async(IMAGES[0], seed=1))
        with pytest.raises(ds.InputError, match="a server draws each request's own"):
            service.certify(IMAGES[0], noise=ds.Noise(shared=True))
        with pytest.raises(ds.InputError, match="at_most is 0"):
            service.predict(IMAGES[0], at_most=0)
        assert service.metrics()["refusals"] == len(wrong) + 4
        assert service.metrics()["passes"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_open", 0), ("max_waiting", 1.5), ("max_seconds", float("inf")), ("max_passes", True), ("allow_seed", 1)],
)
def test_unusable_limits(name: str, value: Any) -> None:
    with pytest.raises(ds.InputError, match=f"limit {name} is {value}; expected"):
        ds.Limits(**{name: value})


def test_a_thread_that_waits_no_longer_stops_the_sampling(
    smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(smoother, monkeypatch)
    with ds.Service(smoother) as service:
        gate.open(2)
        with pytest.raises(OverTime, match=r"not answered within 0\.3 s"):
            service.certify(IMAGES[0], budget=LONG, timeout=0.3)
        gate.open()
        wait_for(lambda: service.metrics()["failures"] == 1)
        assert len(gate.sizes) <= 4
        assert service.metrics()["open"] == 0
        assert service.certify(IMAGES[0], budget=BUDGET, timeout=60).passes > 0


def test_a_cancelled_task_stops_the_sampling(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(smoother, monkeypatch)

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await service.certify_async(IMAGES[0], budget=LONG)
        task = asyncio.ensure_future(service.certify_async(IMAGES[1], budget=LONG))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ds.Service(smoother) as service:
        gate.open(2)
        asyncio.run(ask())
        gate.open()
        wait_for(lambda: service.metrics()["failures"] == 2)
        assert len(gate.sizes) <= 4


def test_nothing_is_lost_where_the_event_loop_ends_first(
    smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(smoother, monkeypatch)
    service = ds.Service(smoother)

    async def leave() -> None:
        task = asyncio.ensure_future(service.certify_async(IMAGES[0], budget=BUDGET))
        await asyncio.wait({task}, timeout=0.01)

    asyncio.run(leave())  # which cancels the task
    gate.open()
    service.close()
    assert service.metrics()["failures"] == 1
    assert service.metrics()["lost"] == 0
    assert capsys.readouterr().out == ""


def test_an_answer_that_comes_when_nobody_waits_does_no_harm(smoother: ds.Smoother) -> None:
    reply = Promised()
    reply.future.cancel()
    reply.answered(smoother.certify(IMAGES[0], budget=BUDGET))
    again = Promised()
    again.future.cancel()
    again.failed(ds.EngineError("no"))
    assert reply.future.cancelled()
    assert again.future.cancelled()


def test_a_full_queue_refuses_and_is_not_ready(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(smoother, monkeypatch)
    service = ds.Service(smoother, ds.Limits(max_open=1, max_waiting=1))
    with ThreadPoolExecutor(2) as threads:
        assert service.ready
        first = threads.submit(service.certify, IMAGES[0], budget=BUDGET)
        wait_for(lambda: service.metrics()["open"] == 1)
        second = threads.submit(service.certify, IMAGES[1], budget=BUDGET)
        wait_for(lambda: service.metrics()["waiting"] == 1)
        assert (service.ready, service.live) == (False, True)
        with pytest.raises(ServerFull, match="ask again later"):
            service.certify(IMAGES[2], budget=BUDGET)
        gate.open()
        assert all(asked.result(60).passes > 0 for asked in (first, second))
    assert service.ready
    service.close()
    assert (service.ready, service.live) == (False, False)


def test_closing_answers_what_was_taken_and_refuses_the_rest(
    smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(smoother, monkeypatch)
    service = ds.Service(smoother, ds.Limits(max_open=1))
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(service.certify, image, budget=BUDGET) for image in IMAGES[:3]]
        wait_for(lambda: service.metrics()["waiting"] == 2)
        closing = threads.submit(service.close)
        wait_for(lambda: not service.ready)
        with pytest.raises(GoingDown):
            service.certify(IMAGES[3], budget=BUDGET)
        assert not closing.done()
        gate.open()
        closing.result(60)
        assert all(future.result(60).passes for future in asked)
    service.close()
    assert service.metrics()["certificates"] == 3


def test_draining_has_an_end(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(smoother, monkeypatch)
    service = ds.Service(smoother)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(service.certify, IMAGES[0], budget=LONG)
        wait_for(lambda: service.metrics()["open"] == 1)
        threading.Timer(0.2, gate.open).start()
        service.close(drain=0.1)
        with pytest.raises(ds.Stopped, match="went down; no certificate is issued"):
            asked.result(60)
    assert len(gate.sizes) <= 3


def test_an_engine_that_hangs_is_not_live(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(smoother, monkeypatch)
    service = ds.Service(smoother, ds.Limits(max_seconds=0.2))
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(service.certify, IMAGES[0], budget=BUDGET)
        wait_for(lambda: not service.live)
        assert not service.ready
        gate.open()
        with pytest.raises(OverTime, match=r"took over 0\.2 s"):
            asked.result(60)
    assert service.live
    service.close()


def test_each_caller_has_an_error_of_its_own() -> None:
    """One failed batch fails many requests; threads that raise one object would write each other's tracebacks."""
    callers, failed = [Promised(), Promised()], ds.EngineError("no such luck")
    for caller in callers:
        caller.failed(failed)
    one, two = (caller.future.exception(0) for caller in callers)
    assert (type(one), str(one)) == (type(two), str(two)) == (ds.EngineError, "no such luck")
    assert one is not two


def test_a_failed_batch_is_an_error_and_no_certificate(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    def logits(*_: Any) -> Any:
        raise ds.EngineError("no such luck")

    with ds.Service(smoother) as service:
        monkeypatch.setattr(smoother.engine, "logits", logits)
        with pytest.raises(ds.EngineError, match="no such luck"):
            service.certify(IMAGES[0], budget=BUDGET)
        monkeypatch.undo()
        assert service.certify(IMAGES[0], budget=BUDGET).passes > 0
        assert (service.metrics()["failures"], service.metrics()["certificates"]) == (1, 1)


def test_metrics_add_up(smoother: ds.Smoother) -> None:
    heard: list[tuple[str, float]] = []
    with ds.Service(smoother, observe=lambda *what: heard.append(what)) as service:
        made = [service.certify(image, budget=BUDGET) for image in IMAGES]
        said = service.predict(IMAGES[0], n=200)
    found = service.metrics()
    assert set(found) == {*METRICS, *GAUGES}
    assert found["passes"] == sum(c.passes for c in made) + said.passes
    assert (found["certificates"], found["predictions"]) == (len(IMAGES), 1)
    assert found["abstentions"] == sum(c.abstained for c in (*made, said))
    assert found["seconds"] > 0
    for name in METRICS:
        assert sum(value for what, value in heard if what == name) == pytest.approx(found[name])


def test_without_prometheus_one_clear_line(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with ds.Service(smoother) as service, pytest.raises(ds.InputError, match="pip install prometheus_client"):
        service.export_metrics()


def test_prometheus_reads_the_same_numbers(smoother: ds.Smoother) -> None:
    prometheus = pytest.importorskip("prometheus_client", reason="`make examples` has it")
    registry = prometheus.CollectorRegistry()
    with ds.Service(smoother) as service:
        collector = service.export_metrics(registry, bundle="toy")
        service.certify(IMAGES[0], budget=BUDGET)
        for name, value in service.metrics().items():
            full = f"dualsmooth_{name}" + ("_total" if name in METRICS else "")
            assert registry.get_sample_value(full, {"bundle": "toy"}) == value
        registry.unregister(collector)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later
def test_a_forked_child_is_refused_and_the_parent_goes_on(smoother: ds.Smoother) -> None:
    service = ds.Service(smoother, OPEN)
    with service._news:  # as if another thread had it at the fork
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                service.certify(IMAGES[0], budget=BUDGET)
                said = "answered"
            except ds.DualSmoothError as error:
                said = f"{type(error).__name__}: {error} {service.live} {service.ready}"
            service.close()
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert select.select([pipe], [], [], 20)[0]
        assert pipe.read().decode().startswith("EngineError: this service was begun in another process")
    os.waitpid(child, 0)
    assert service.certify(IMAGES[0], budget=BUDGET, seed=1) == smoother.certify(IMAGES[0], budget=BUDGET, seed=1)
    service.close()
