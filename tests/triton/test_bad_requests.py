"""Over 20 kinds of bad request: each is INVALID_ARGUMENT, with the very line that a local call gives."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
import toys
from triton_server import TritonServer

import dualsmooth as ds
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.protocol import OverTime, ServerFull, from_line
from dualsmooth.runtime.serving.requests import accept

pytestmark = pytest.mark.slow
GOOD = toys.image(0.7, 0.3)
AS_LOCALLY: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    # what: image, request parameters, and the arguments of the local call
    "NaN": (np.full((1, 1, 2), np.nan, np.float32), {}, {}),
    "infinite": (np.full((1, 1, 2), np.inf, np.float32), {}, {}),
    "too bright": (np.full((1, 1, 2), 200, np.float32), {}, {}),
    "negative": (np.full((1, 1, 2), -0.5, np.float32), {}, {}),
    "too wide": (np.zeros((1, 1, 3), np.float32), {}, {}),
    "three channels": (np.zeros((3, 1, 2), np.float32), {}, {}),
    "alpha zero": (GOOD, {"alpha": 0.0}, {"alpha": 0.0}),
    "alpha large": (GOOD, {"alpha": 0.5}, {"alpha": 0.5}),
    "alpha text": (GOOD, {"alpha": "tiny"}, {"alpha": "tiny"}),
    "alpha integer": (GOOD, {"alpha": 1}, {"alpha": 1}),
    "rule unknown": (GOOD, {"rule": "best"}, {"rule": "best"}),
    "rule number": (GOOD, {"rule": 7}, {"rule": 7}),
    "sigma unknown": (GOOD, {"rule": "single:0.3"}, {"rule": "single:0.3"}),
    "route unknown": (GOOD, {"route": "mean"}, {"route": "mean"}),
    "budget number": (GOOD, {"budget": 1000}, {"budget": 1000}),
    "multiscale budget": (
        GOOD,
        {"rule": "multiscale", "budget": "adaptive:999"},
        {"rule": "multiscale", "budget": ds.Adaptive(999)},
    ),
    "seed negative": (GOOD, {"seed": -1}, {"seed": -1}),
    "seed too large": (GOOD, {"seed": str(1 << 128)}, {"seed": 1 << 128}),
    "seed text": (GOOD, {"seed": "lucky"}, {"seed": "lucky"}),
    "seed fraction": (GOOD, {"seed": 1.5}, {"seed": 1.5}),
    "seed bool": (GOOD, {"seed": True}, {"seed": True}),
    "predict none": (GOOD, {"mode": "predict", "n": 0}, {"n": 0}),
    "predict rule": (GOOD, {"mode": "predict", "rule": "multiscale"}, {"rule": "multiscale"}),
}
BY_BUDGET = ["fixed:none", "fixed:0", "fixed:100:0", "adaptive:100:2", "at-radius:-1", "at-radius:nan", "often", ""]
OF_THE_SERVER = {
    "unknown parameter": (
        {"bugdet": "fixed:10"},
        "parameter 'bugdet' is unknown in mode certify; expected one of alpha",
    ),
    "not for predict": ({"mode": "predict", "budget": "fixed:9"}, "parameter 'budget' is unknown in mode predict"),
    "noise unknown": ({"noise": "pink"}, "noise 'pink' is unknown; expected auto, float, lattice or table"),
    "noise shared": (
        {"noise": "float (shared)"},
        "noise 'float (shared)' is unknown; expected auto, float, lattice or table",
    ),
    "noise number": ({"noise": 3}, "noise '3' is unknown; expected auto, float, lattice or table"),
    "off the lattice": ({"noise": "lattice"}, "lattice noise needs an image on the lattice"),
    "unknown mode": ({"mode": "guess"}, "mode 'guess' is unknown; expected certify or predict"),
    "all_levels text": ({"all_levels": "yes"}, "all_levels is 'yes'; expected true or false"),
    "index negative": ({"index": -1}, "index is -1; expected an integer from 0 to 2^63 - 1"),
    "too many passes": ({"budget": "fixed:100000000"}, "expected at most 2000000 on this server: ask for less"),
}


def refusal(
    server: TritonServer, wire: str, image: Any, parameters: dict[str, Any], model: str = "dual_smoothing"
) -> str:
    """The server's line, over the raw protocol; asserts that status and code say that the request is bad."""
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    module = tritonclient.grpc if wire == "grpc" else tritonclient.http
    client = module.InferenceServerClient(f"127.0.0.1:{server.grpc if wire == 'grpc' else server.http}")
    tensor = module.InferInput("IMAGE", list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor], parameters=parameters)
    client.close()
    assert caught.value.status() == {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}[wire]
    kind, line = from_line(str(caught.value.message()))
    assert kind is ds.InputError
    return line


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize("what", AS_LOCALLY)
def test_the_line_is_the_local_one(server: TritonServer, local: ds.Smoother, wire: str, what: str) -> None:
    image, parameters, arguments = AS_LOCALLY[what]
    call = local.predict if parameters.get("mode") == "predict" else local.certify
    with pytest.raises(ds.InputError) as caught:
        call(image, **arguments)
    assert refusal(server, wire, image, parameters) == str(caught.value)


@pytest.mark.parametrize("budget", BY_BUDGET)
def test_unusable_budgets(server: TritonServer, budget: str) -> None:
    with pytest.raises(ds.InputError) as caught:
        ds.parse_budget(budget)
    assert refusal(server, "grpc", GOOD, {"budget": budget}) == str(caught.value)


@pytest.mark.parametrize("what", OF_THE_SERVER)
def test_what_only_a_server_refuses(server: TritonServer, local: ds.Smoother, what: str) -> None:
    parameters, line = OF_THE_SERVER[what]
    found = refusal(server, "grpc", GOOD, parameters)
    assert line in found
    with pytest.raises(ds.InputError) as caught:
        accept(local, Limits(), GOOD, parameters, None)  # type: ignore[arg-type]
    assert str(caught.value) == found


def test_limits_come_from_the_configuration(server: TritonServer) -> None:
    assert "expected at most 8 on this server" in refusal(
        server, "grpc", np.zeros((3, 3, 3), np.float32), {}, model="limited"
    )
    assert "expected at most 3000000 on" in refusal(server, "http", GOOD, {"budget": "fixed:1000001"}, model="limited")


def test_time_limit_and_full_server(server: TritonServer) -> None:
    """A budget that takes seconds against half a second; and more requests than may wait: none gets a certificate."""
    with ds.connect(f"grpc://127.0.0.1:{server.grpc}", model="limited", retries=0) as remote:
        pendings = [remote.wire.send(GOOD, {"budget": "fixed:900000"}) for _ in range(6)]
        lines, kinds = [], set()
        for pending in pendings:
            with pytest.raises(ds.ServerError) as caught:
                pending.result()
            lines.append(str(caught.value))
            kinds.add(type(caught.value))
        assert kinds == {OverTime, ServerFull}
        assert any("took over 0.5 s, this server's limit; no certificate is issued" in line for line in lines)
        assert any("the server is full (1 requests wait)" in line for line in lines)
    with ds.connect(f"grpc://127.0.0.1:{server.grpc}", model="limited", retries=8) as remote:
        made = list(remote.certify_many([GOOD] * 4, budget=ds.Fixed(50), in_flight=4))
        assert len({c.seed.entropy for c in made}) == 4


def test_wrong_types_and_ranks_are_refused_by_triton(server: TritonServer) -> None:
    for shape, kind in (([2], "FP32"), ([1, 1, 1, 2], "FP32"), ([1, 1, 2], "INT64")):
        body = {"inputs": [{"name": "IMAGE", "shape": shape, "datatype": kind, "data": [0, 0]}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.http}/v2/models/dual_smoothing/infer", json.dumps(body).encode()
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 400
        caught.value.close()


@pytest.mark.parametrize("what", ["too bright", "alpha large", "rule unknown", "seed negative"])
def test_our_client_refuses_before_it_sends(remote: ds.RemoteSmoother, local: ds.Smoother, what: str) -> None:
    image, _, arguments = AS_LOCALLY[what]
    lines = []
    for smoother in (remote, local):
        with pytest.raises(ds.InputError) as caught:
            smoother.certify(image, **arguments)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
