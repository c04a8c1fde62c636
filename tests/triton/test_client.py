"""The client without a server: addresses, and answers that must not be believed."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.serving import protocol
from dualsmooth.runtime.serving.address import is_url, open_wire
from dualsmooth.runtime.serving.client import RemoteSmoother
from dualsmooth.runtime.serving.protocol import Refused
from dualsmooth.runtime.serving.tensors import Tensors, outputs
from dualsmooth.runtime.serving.wire import Wire

FIXED = ds.Fixed(100, n0=20)
IMAGE = toys.image(0.7, 0.3)


class Fake(Wire):
    """A server in this process, which may lie, refuse or die."""

    def __init__(self, smoother: ds.Smoother) -> None:
        super().__init__("grpc://fake:1", "fake:1", "dual_smoothing", 5.0, 3, False)
        self.smoother = smoother
        self.lie: Callable[[ds.Certificate], ds.Certificate] = lambda certificate: certificate
        self.refusals: list[BaseException] = []
        self.asked = 0
        self.tensors: Callable[[Tensors], Tensors] = lambda tensors: tensors

    def read_config(self, timeout: float) -> dict[str, Any]:
        return {}

    def infer(self, pixels: Any, parameters: Any, timeout: float) -> Tensors:
        return outputs(None, "process 1")

    def start(self, pixels: Any, parameters: Any) -> Any:
        from concurrent.futures import Future

        self.asked += 1
        future: Future[Tensors] = Future()
        if self.refusals:
            future.set_exception(self.refusals.pop())
        else:
            seed = int(parameters["seed"]) if "seed" in parameters else None
            options = {"budget": ds.parse_budget(parameters["budget"]), "rule": parameters["rule"], "seed": seed}
            made = next(self.smoother.certify_many([pixels], indices=[parameters["index"]], **options))
            future.set_result(self.tensors(outputs(self.lie(made))))
        return future, future.cancel, lambda: None

    def stream(self, pixels: Any, parameters: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.fixture
def wire(toy_bundle: Path) -> Fake:
    return Fake(ds.load(toy_bundle, threads=1))


@pytest.fixture
def remote(wire: Fake, toy_bundle: Path) -> RemoteSmoother:
    return RemoteSmoother(wire, {"manifest": (toy_bundle / "manifest.json").read_text(), "provider": "cpu"})


def test_an_honest_answer_is_believed(remote: RemoteSmoother, wire: Fake) -> None:
    here, there = (s.certify(IMAGE, seed=1, budget=FIXED) for s in (wire.smoother, remote))
    assert there.to_json() == here.to_json()


LIES: dict[str, Callable[[ds.Certificate, ds.Smoother], ds.Certificate]] = {
    "radius": lambda c, s: dataclasses.replace(c, outcome=dataclasses.replace(c.outcome, radius=c.radius + 0.01)),
    "label": lambda c, s: dataclasses.replace(c, outcome=dataclasses.replace(c.outcome, label=0)),
    "image": lambda c, s: s.certify(toys.image(0.9, 0.3), seed=1, budget=FIXED),
    "alpha": lambda c, s: s.certify(IMAGE, seed=1, budget=FIXED, alpha=0.1),
    "budget": lambda c, s: s.certify(IMAGE, seed=1, budget=ds.Fixed(101, n0=20)),
    "rule": lambda c, s: s.certify(IMAGE, seed=1, budget=FIXED, rule="paper"),
    "seed": lambda c, s: s.certify(IMAGE, seed=2, budget=FIXED),
    "no seed": lambda c, s: s.certify(IMAGE, budget=FIXED),
    "index": lambda c, s: dataclasses.replace(c, seed=c.seed.at(1)),
    "files": lambda c, s: dataclasses.replace(
        c, artefact=dataclasses.replace(c.artefact, files=dict.fromkeys(c.artefact.files, "0" * 64))
    ),
    "sigmas": lambda c, s: dataclasses.replace(c, terms=dataclasses.replace(c.terms, sigmas=(1.0, 2.0))).recompute(),
}


@pytest.mark.parametrize("what", LIES)
def test_other_answers_are_not(remote: RemoteSmoother, wire: Fake, what: str) -> None:
    wire.lie = lambda certificate: LIES[what](certificate, wire.smoother)
    with pytest.raises(ds.CertificateError):
        remote.certify(IMAGE, seed=1, budget=FIXED)


@pytest.mark.parametrize("name", ["LABEL", "RADIUS"])
def test_tensors_must_agree_with_the_certificate(remote: RemoteSmoother, wire: Fake, name: str) -> None:
    wire.tensors = lambda tensors: tensors | {name: tensors[name] + 1}
    with pytest.raises(ds.CertificateError, match=f"another {name.lower()}"):
        remote.certify(IMAGE, seed=1, budget=FIXED)


@pytest.mark.parametrize("name", ["LABEL", "RADIUS", "CERTIFICATE"])
@pytest.mark.parametrize("value", [None, np.array([], np.float64), np.array([b"\xff"]), "gone"], ids=str)
def test_tensors_that_hold_nothing_are_one_clear_line(
    remote: RemoteSmoother, wire: Fake, name: str, value: Any
) -> None:
    wire.tensors = lambda t: (
        {k: v for k, v in t.items() if k != name} | ({} if isinstance(value, str) else {name: value})
    )
    with pytest.raises(ds.DualSmoothError) as caught:
        remote.certify(IMAGE, budget=FIXED)
    assert "\n" not in str(caught.value)


def test_a_refusal_is_asked_again_and_a_lost_request_is_not(remote: RemoteSmoother, wire: Fake) -> None:
    wire.refusals = [Refused("full"), Refused("full")]
    assert remote.certify(IMAGE, seed=1, budget=FIXED).label == 1
    assert wire.asked == 3
    for lost in (ConnectionResetError("gone"), ds.ServerError("stopped"), TimeoutError("timed out")):
        wire.asked, wire.refusals = 0, [lost]
        with pytest.raises(ds.ServerError):
            remote.certify(IMAGE, seed=1, budget=FIXED)
        assert wire.asked == 1


def test_images_before_a_bad_one_are_certified(remote: RemoteSmoother) -> None:
    stream = remote.certify_many([IMAGE, IMAGE, IMAGE * 9, IMAGE], budget=FIXED)
    assert [next(stream).seed.index for _ in range(2)] == [0, 1]
    with pytest.raises(ds.InputError, match="ranges from"):
        next(stream)
    with pytest.raises(ds.InputError, match="fewer indices"):
        list(remote.certify_many([IMAGE, IMAGE], budget=FIXED, indices=[0]))
    with pytest.raises(ds.InputError, match="in_flight"):
        list(remote.certify_many([IMAGE], in_flight=0))


def test_networks_are_not_here(remote: RemoteSmoother) -> None:
    certificate = remote.certify(IMAGE, seed=1, budget=FIXED)
    remote.verify(certificate)
    with pytest.raises(ds.EngineError, match="run on the server"):
        remote.engine.votes(remote.bundle.estimator, np.zeros((1, 1, 1, 2), np.float32), 0.5, 2)


def test_only_a_dualsmooth_model_is_connected_to(wire: Fake) -> None:
    with pytest.raises(ds.ServerError, match="not a dualsmooth model"):
        RemoteSmoother(wire, {})


@pytest.mark.parametrize("url", ["grpc://", "grpc://host", "ftp://host:1", "host:8001", "grpc://:8001", "http://h:p"])
def test_unusable_addresses(url: str) -> None:
    with pytest.raises(ds.InputError, match="expected grpc://host:8001"):
        ds.connect(url)


def test_unusable_options() -> None:
    for options in ({"timeout": 0}, {"retries": -1}, {"timeout": float("nan")}):
        with pytest.raises(ds.InputError, match="expected a positive timeout"):
            ds.connect("grpc://127.0.0.1:9", **options)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:9", "http://127.0.0.1:9"])
def test_nobody_there(url: str) -> None:
    with pytest.raises(ds.ServerError, match="cannot be reached") as caught:
        ds.connect(url, retries=1, timeout=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_hangs_is_seen_long_before_a_certificate_times_out(scheme: str) -> None:
    """Somebody listens and never answers: pings, and so health checks, have a time-out of their own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wire = open_wire(
            f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", "m", timeout=25, retries=0, shared_memory=False
        )
        start = time.monotonic()
        with pytest.raises(ds.ServerError):
            wire.ping(1.0)
        assert time.monotonic() - start < 15
        wire.close()


def test_without_tritonclient_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient", None)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(ds.InputError, match=r"needs tritonclient; install it with pip install 'dualsmooth\[triton\]'"):
        open_wire("grpc://h:1", "m", timeout=1, retries=0, shared_memory=False)


def test_folders_are_no_addresses() -> None:
    assert is_url("grpc://a:1")
    assert not is_url(Path("grpc://a:1"))
    assert not is_url("bundles/x")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"label": -1}', '{"label": true}', "{" * 100_000])
def test_damaged_predictions(text: str) -> None:
    with pytest.raises(ds.CertificateError):
        ds.Prediction.from_json(text)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("StatusCode.INVALID_ARGUMENT", "dualsmooth.bad-request: alpha is 2", ds.InputError),
        ("400", "dualsmooth.bad-request: alpha is 2", ds.InputError),
        ("400", "dualsmooth.over-time: took over 1 s, this server's limit; ask for less", protocol.OverTime),
        ("StatusCode.CANCELLED", "dualsmooth.cancelled: no certificate is issued", protocol.Cancelled),
        ("503", "dualsmooth.full: the server is full (3 requests wait); ask again later", protocol.ServerFull),
        ("StatusCode.UNAVAILABLE", "dualsmooth.going-down: ask another one", protocol.GoingDown),
        ("500", "dualsmooth.failed: NaN", protocol.Failed),
        # another version's words, or Triton's own
        ("503", "dualsmooth.hungry: it is lunch time", ds.ServerError),
        ("400", "alpha is 2; expected a number like dualsmooth.full: 0.1", ds.ServerError),
        ("503", "the server is full (3 requests wait); ask again later", ds.ServerError),
        ("StatusCode.UNAVAILABLE", "Exceeds maximum queue size", protocol.ServerFull),
        ("StatusCode.UNAVAILABLE", "failed to connect", ds.ServerError),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", ds.ServerError),
        ("StatusCode.INTERNAL", "Stub process 'm_0_0' is not healthy.", ds.ServerError),
    ],
)
def test_statuses(wire: Fake, status: str, message: str, kind: type[ds.DualSmoothError]) -> None:
    from tritonclient.utils import InferenceServerException

    error = wire.translated(InferenceServerException(message, status))
    assert type(error) is kind
    assert "dualsmooth." not in str(error) or kind is ds.ServerError
    assert message.rpartition(": ")[2] in str(error) or "cannot be reached" in str(error) or "no answer" in str(error)
    assert "\n" not in str(error)
