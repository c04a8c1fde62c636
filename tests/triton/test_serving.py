"""The service, without Triton: shared batches, fairness, limits, cancellation, and failures that stay apart."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from gate import Gate

import dualsmooth as ds
from dualsmooth.runtime.noise.selftest import check_generator
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.protocol import Refused, Stopped
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.requests import accept
from dualsmooth.runtime.serving.service import Service
from dualsmooth.runtime.smoothing.sampler import Sampler
from dualsmooth.runtime.statistics.votes import Stream


@pytest.fixture
def smoother(toy_bundle: Path) -> ds.Smoother:
    return ds.load(toy_bundle, threads=1)


IMAGE = toys.image(0.7, 0.3)
ASK = {"budget": "fixed:400:20", "seed": "3"}


def test_answers_are_those_of_a_direct_call(smoother: ds.Smoother) -> None:
    expected = smoother.certify(IMAGE, budget=ds.Fixed(400, n0=20), seed=3).to_json()
    service = Service(smoother, Limits(allow_seed=True))
    replies = [Collected() for _ in range(5)]
    for reply in replies:
        service.submit(IMAGE, ASK, reply)
    for reply in replies:
        assert reply.done.wait(60)
        assert reply.answer.to_json() == expected
    service.close()


def test_requests_that_come_later_join_the_batches(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, service = Gate(smoother, monkeypatch), Service(smoother, Limits(allow_seed=True))
    replies = [Collected() for _ in range(3)]
    service.submit(IMAGE, {"budget": "fixed:60:20"}, replies[0])
    gate.open(1)
    for reply in replies[1:]:
        service.submit(IMAGE, {"budget": "fixed:60:20"}, reply)
    gate.open()
    assert all(reply.done.wait(60) for reply in replies)
    assert max(gate.sizes) > 60  # one request alone never fills so much of a batch
    service.close()


def test_a_long_request_does_not_hold_up_a_short_one(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, service = Gate(smoother, monkeypatch), Service(smoother, Limits(allow_seed=True))
    long, short = Collected(), Collected()
    service.submit(IMAGE, {"budget": "fixed:100000"}, long)
    gate.open(1)
    service.submit(IMAGE, {"budget": "fixed:100"}, short)
    for _ in range(40):
        gate.open(1)
    assert short.done.wait(60)
    assert not long.done.is_set()
    assert len(gate.sizes) <= 41
    long.stop = True
    gate.open()
    assert long.done.wait(60)
    service.close()


def test_the_memory_of_the_request_may_be_reused(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton frees an input as soon as `execute` returns."""
    gate, service, reply = Gate(smoother, monkeypatch), Service(smoother, Limits(allow_seed=True)), Collected()
    memory = IMAGE.copy()
    service.submit(memory, ASK, reply)
    memory[:] = 0
    gate.open()
    assert reply.done.wait(60)
    service.close()
    assert reply.answer.to_json() == smoother.certify(IMAGE, budget=ds.Fixed(400, n0=20), seed=3).to_json()


def test_cancellation_stops_within_a_batch(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, service, reply = Gate(smoother, monkeypatch), Service(smoother, Limits(allow_seed=True)), Collected()
    service.submit(IMAGE, {"budget": "fixed:100000"}, reply)
    gate.open(2)
    reply.stop = True
    gate.open()
    assert reply.done.wait(60)
    assert isinstance(reply.error, Stopped)
    assert len(gate.sizes) <= 4
    service.close()


def test_time_limit(smoother: ds.Smoother) -> None:
    service, reply = Service(smoother, Limits(max_seconds=0.05, max_passes=10**9, allow_seed=True)), Collected()
    service.submit(IMAGE, {"budget": "fixed:10000000"}, reply)
    assert reply.done.wait(60)
    assert str(reply.error) == "took over 0.05 s, this server's limit; no certificate is issued: ask for less"
    service.close()


def test_a_full_server_refuses_before_sampling(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, service = Gate(smoother, monkeypatch), Service(smoother, Limits(max_open=1, max_waiting=1, allow_seed=True))
    replies = [Collected() for _ in range(4)]
    refused = []
    for reply in replies:
        try:
            service.submit(IMAGE, ASK, reply)
        except Refused as error:
            refused.append(reply)
            assert str(error) == "the server is full (1 requests wait); ask again later"  # noqa: PT017
    assert len(refused) in (2, 3)
    gate.open()
    assert all(reply.done.wait(60) for reply in replies if reply not in refused)
    assert not any(reply.done.is_set() for reply in refused)
    service.close()


def test_a_failed_batch_fails_its_own_requests_only(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    real = smoother.engine.logits

    def logits(name: str, batch: Any, sigma: float, width: int) -> Any:
        if (batch[:, 0, 0, 0] > 50).any():
            raise ds.EngineError("no")
        return real(name, batch, sigma, width)

    monkeypatch.setattr(smoother.engine, "logits", logits)
    monkeypatch.setattr(smoother, "check_image", lambda image, noise=None: image)
    smoother.batch_size = 1  # so that no batch is shared
    service = Service(smoother, Limits(allow_seed=True))
    good, bad = Collected(), Collected()
    service.submit(toys.image(99, 0), {"budget": "fixed:50:5"}, bad)
    service.submit(IMAGE, {"budget": "fixed:50:5"}, good)
    assert bad.done.wait(60)
    assert good.done.wait(60)
    assert isinstance(bad.error, ds.EngineError)
    assert bad.answer is None
    assert good.answer is not None
    service.close()


def test_closing_fails_what_is_open(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, service, reply = Gate(smoother, monkeypatch), Service(smoother, Limits(allow_seed=True)), Collected()
    service.submit(IMAGE, {"budget": "fixed:100000"}, reply)
    gate.open(3)
    threading.Timer(0.0, gate.open).start()
    service.close(drain=0)
    assert isinstance(reply.error, Stopped)
    with pytest.raises(Refused, match="going down"):
        service.submit(IMAGE, ASK, Collected())


def test_an_unexpected_error_fails_all_and_is_seen(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    def logits(*_: Any) -> Any:
        raise MemoryError("gone")

    monkeypatch.setattr(smoother.engine, "logits", logits)
    service, reply = Service(smoother, Limits(allow_seed=True)), Collected()
    service.submit(IMAGE, ASK, reply)
    assert reply.done.wait(60)
    assert isinstance(reply.error, ds.EngineError)
    service.close()
    with pytest.raises(Refused):
        service.check()


def test_progress_is_told_after_each_look(smoother: ds.Smoother) -> None:
    service, reply = Service(smoother, Limits(allow_seed=True)), Collected(wants_progress=True)
    service.submit(IMAGE, {"budget": "adaptive:10000", "seed": "1"}, reply)
    assert reply.done.wait(60)
    service.close()
    assert len(reply.progress) >= 3
    assert all(p.radius <= reply.answer.radius for p in reply.progress)
    for made in reply.progress:  # each is a certificate of its own
        ds.Certificate.from_json(made.to_json())


@pytest.mark.parametrize("text", ["0", "-1", "x", "inf", "nan"])
def test_unusable_limits_are_refused(text: str) -> None:
    with pytest.raises(ds.InputError, match="max_seconds"):
        Limits.from_parameters({"max_seconds": text})


def test_generator_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    check_generator(Seed(1))

    class Broken:
        def __init__(self, real: np.random.Generator) -> None:
            self.real = real

        def standard_normal(self, *, dtype: Any, out: Any) -> Any:
            self.real.standard_normal(dtype=dtype, out=out)
            out[1::2] = out[::2]  # every draw twice

    real = Seed.generator
    monkeypatch.setattr(Seed, "generator", lambda self, stream: Broken(real(self, stream)))
    with pytest.raises(ds.EngineError, match="serial correlation"):
        check_generator(Seed(1))
    one = Stream("estimator", 0, "selection")
    monkeypatch.setattr(Seed, "generator", lambda self, stream: real(self, one))
    with pytest.raises(ds.EngineError, match="two streams"):
        check_generator(Seed(1))


@pytest.mark.parametrize(
    "parameters", [{"budget": 0}, {"budget": False}, {"mode": []}, {"mode": {}}, {"mode": None}], ids=str
)
def test_odd_parameters_are_bad_requests(smoother: ds.Smoother, parameters: dict[str, Any]) -> None:
    with pytest.raises(ds.InputError):
        accept(smoother, Limits(), IMAGE, parameters, Collected())


def test_no_budget_is_the_usual_one(smoother: ds.Smoother) -> None:
    ticket = accept(smoother, Limits(), IMAGE, {"budget": None}, Collected())
    assert ticket.terms is not None
    assert ticket.terms.budget == ds.Fixed(10_000)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"n": "1000"}, {"n": 1000}),
        ({"n": "1e3"}, {"n": 1000}),
        ({"n": "200", "alpha": "0.01"}, {"n": 200, "alpha": 0.01}),
        ({"n": "200", "alpha": "1e-2"}, {"n": 200, "alpha": 0.01}),
        ({"n": "200", "index": "3"}, {"n": 200, "index": 3}),
        ({"alpha": "0.05", "all_levels": "true"}, {"alpha": 0.05, "all_levels": True}),
        ({"all_levels": "False"}, {"all_levels": False}),
        ({"seed": "-0"}, {"seed": 0}),
    ],
)
def test_numbers_sent_as_text(smoother: ds.Smoother, sent: dict[str, Any], meant: dict[str, Any]) -> None:
    def answer(parameters: dict[str, Any]) -> str:
        kind = {"mode": "predict"} if "n" in parameters else {"budget": "fixed:200"}
        given = kind | {"seed": 5} | parameters
        ticket = accept(smoother, Limits(allow_seed=True), IMAGE, given, Collected())
        next(Sampler(smoother.bundle, smoother.engine).run([ticket.job]))
        return ticket.answer().to_json()

    assert answer(sent) == answer(meant)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"mode": "predict", "n": "1.5"}, "n is '1.5'; expected an integer"),
        ({"mode": "predict", "n": "many"}, "n is 'many'"),
        ({"mode": "predict", "n": "nan"}, "n is 'nan'"),
        ({"mode": "predict", "n": 1000.0}, "n is 1000.0; expected an integer"),
        ({"mode": "predict", "n": "3"}, "n is 3: .* would always abstain"),
        ({"alpha": "small"}, "alpha is 'small'"),
        ({"alpha": "99.9"}, "a confidence of 99.9 % is alpha 0.001"),
        ({"alpha": "nan"}, "alpha is nan"),
        ({"all_levels": "yes"}, "all_levels is 'yes'; expected true or false"),
        ({"all_levels": "1"}, "all_levels is '1'"),
        ({"seed": "5.5"}, "seed"),
        ({"index": "-1"}, "index"),
        ({"budget": "1000"}, "budget '1000'"),
        ({"budget": "fixed:5"}, "can never certify"),
    ],
)
def test_text_that_is_no_such_number_is_named(smoother: ds.Smoother, sent: dict[str, Any], says: str) -> None:
    with pytest.raises(ds.InputError, match=says):
        accept(smoother, Limits(allow_seed=True), IMAGE, sent, Collected())
