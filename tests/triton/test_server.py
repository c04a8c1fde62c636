"""The real server: the same labels, radii and counts as in process, over every wire and route."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import toys
from triton_server import TritonServer

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.formats import load_dataset

pytestmark = pytest.mark.slow
FIXED = ds.Fixed(400, n0=20)
RULES = ["interval", "paper", "multiscale", "confidence:0.6", "sure:0.4", "fallback:0.6", "single:0.5"]
IMAGES = [toys.image(0.3 + 0.04 * i, 0.5 + 0.02 * i) for i in range(12)]


@pytest.mark.parametrize("rule", RULES)
def test_certificates_are_those_of_the_process(remote: ds.RemoteSmoother, local: ds.Smoother, rule: str) -> None:
    for seed in (1, 2**100 + 3):
        here, there = (s.certify(IMAGES[3], rule=rule, budget=FIXED, seed=seed) for s in (local, remote))
        assert there.to_json() == here.to_json()


@pytest.mark.parametrize("budget", [FIXED, ds.Adaptive(900, 0.02, n0=20), ds.AtRadius(0.2, 900, n0=20)], ids=str)
def test_many_share_batches_and_keep_their_votes(
    remote: ds.RemoteSmoother, local: ds.Smoother, budget: ds.Budget
) -> None:
    images = IMAGES[::3]
    here = [c.to_json() for c in local.certify_many(images, budget=budget, seed=7)]
    there = [c.to_json() for c in remote.certify_many(images, budget=budget, seed=7)]
    assert there == here


def test_all_levels_and_routes_and_bytes(remote: ds.RemoteSmoother, local: ds.Smoother) -> None:
    pixels = np.array([[[200, 90]]], np.uint8)
    options: dict[str, Any] = {"budget": FIXED, "seed": 3, "route": "mode", "alpha": 0.01, "indices": [5]}
    here, there = (next(s.certify_many([pixels], all_levels=True, **options)) for s in (local, remote))
    assert there.to_json() == here.to_json()


def test_predictions_are_those_of_the_process(remote: ds.RemoteSmoother, local: ds.Smoother) -> None:
    for image in (IMAGES[0], toys.image(0.22, 0.6)):
        for rule in ("interval", "paper"):
            here, there = (s.predict(image, n=300, rule=rule, seed=9) for s in (local, remote))
            assert there == here


def test_real_networks(grpc_url: str) -> None:
    images = load_dataset(f"npz:{SHIPPED_IMAGES}").images[:3]
    local = ds.load(SHIPPED_BUNDLE, threads=1)
    with ds.connect(grpc_url, model="fashion") as remote:
        here, there = ([c.to_json() for c in s.certify_many(images, budget=FIXED, seed=1)] for s in (local, remote))
    assert there == here


def test_one_level_without_a_router_and_pictures_of_any_size(url: str, lone_bundle: Path) -> None:
    """The client makes the network's input of a picture; what comes as floats must be one already."""
    photo = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    local = ds.load(lone_bundle, threads=1)
    with ds.connect(url, model="lone") as remote:
        for image in (photo, local.check_image(photo)):
            here, there = (s.certify(image, budget=FIXED, seed=1) for s in (local, remote))
            assert there.to_json() == here.to_json()
            assert (str(there.terms.rule), there.terms.route_kind) == ("single:0.5", "none")
            assert there.artefact.about
        here, there = (s.predict(photo, n=300, seed=9) for s in (local, remote))
        assert there == here
        remote.check_health()
        with pytest.raises(ds.InputError, match="expected the network's input"):
            remote.certify(np.zeros((1, 30, 40), np.float32))
        pending = remote.wire.send(np.zeros((1, 30, 40), np.float32), {})
        with pytest.raises(ds.InputError, match=r"image is float32 \[1, 30, 40\]; expected the network's input"):
            pending.result()


def test_noise_on_the_lattice(remote: ds.RemoteSmoother, local: ds.Smoother) -> None:
    image, noise = toys.image(150 / 255, 102 / 255), ds.Noise("lattice", "Philox")
    here, there = (s.certify(image, budget=FIXED, seed=3, noise=noise) for s in (local, remote))
    assert here.seed.noise == noise
    assert there.to_json() == here.to_json()
    with pytest.raises(ds.InputError, match="lattice"):
        remote.certify(toys.image(0.7, 0.3), noise=noise)
    with pytest.raises(ds.InputError, match="shared"):
        remote.certify(image, noise=ds.Noise(shared=True))


def test_by_default_the_image_decides_the_noise(remote: ds.RemoteSmoother, local: ds.Smoother) -> None:
    """There as here, and the client checks it."""
    for image, mode in ((toys.image(150 / 255, 102 / 255), "table"), (toys.image(0.7, 0.3), "float")):
        here, there = (s.certify(image, budget=FIXED, seed=3) for s in (local, remote))
        assert here.seed.noise == ds.Noise(mode)
        assert there.to_json() == here.to_json()
        assert remote.predict(image, n=50).seed.noise == ds.Noise(mode)


def test_without_a_seed_the_server_draws_one(remote: ds.RemoteSmoother) -> None:
    first, second = (remote.certify(IMAGES[0], budget=FIXED) for _ in range(2))
    assert not first.seed.fixed
    assert first.seed.entropy != second.seed.entropy


def test_shared_memory(url: str, local: ds.Smoother) -> None:
    with ds.connect(url, shared_memory=True) as remote:
        there = [c.to_json() for c in remote.certify_many(IMAGES, budget=FIXED, seed=7, in_flight=4)]
    assert there == [c.to_json() for c in local.certify_many(IMAGES, budget=FIXED, seed=7)]


def test_output_tensors(server: TritonServer, local: ds.Smoother) -> None:
    """The raw protocol, with no client of ours; with Python's async client."""
    import tritonclient.grpc.aio as aio

    async def ask(image: np.ndarray[Any, Any], seed: int) -> Any:
        async with aio.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            tensor = aio.InferInput("IMAGE", list(image.shape), "FP32")
            tensor.set_data_from_numpy(image)
            parameters = {"alpha": 0.001, "budget": "fixed:400:20", "rule": "interval", "seed": seed}
            return await client.infer("dual_smoothing", [tensor], parameters=parameters)

    async def ask_all() -> list[Any]:
        undecided = toys.image(0.225, 0.6)
        return await asyncio.gather(*(ask(image, 5) for image in (IMAGES[4], undecided)))

    sure, undecided = asyncio.run(ask_all())
    expected = local.certify(IMAGES[4], budget=FIXED, seed=5)
    for name, dtype, value in (
        ("LABEL", np.int64, expected.label),
        ("RADIUS", np.float64, expected.radius),
        ("SIGMA", np.float64, expected.sigma),
        ("ABSTAINED", np.bool_, False),
    ):
        assert sure.as_numpy(name).dtype == dtype
        assert sure.as_numpy(name).tolist() == [value]
    assert sure.as_numpy("CERTIFICATE").tobytes().decode() == expected.to_json()
    assert [text.decode() for text in sure.as_numpy("CERTIFICATE_JSON")] == [expected.to_json()]
    assert (undecided.as_numpy("LABEL")[0], undecided.as_numpy("ABSTAINED")[0]) == (-1, True)


def ask_in_json(server: TritonServer, verb: str, model: str = "dual_smoothing", **asked: Any) -> tuple[int, str]:
    """Status and text of what Triton's HTTP answers to a JSON object."""
    body = json.dumps(asked).encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2/models/{model}/{verb}", body) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def in_base64(pixels: np.ndarray[Any, Any]) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_of_any_size_where_the_bundle_resizes(server: TritonServer, lone_bundle: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    expected = ds.load(lone_bundle, threads=1).certify(photo, budget=FIXED, seed=1)
    status, text = ask_in_json(server, "generate", "lone", PICTURE=in_base64(photo), budget=str(FIXED), seed=1)
    assert (status, json.loads(text)["CERTIFICATE_JSON"]) == (200, expected.to_json())


def test_pictures_and_text(server: TritonServer, local: ds.Smoother) -> None:
    """`generate` and `generate_stream`, which take no pixels."""
    pixels = np.array([[230, 25]], np.uint8)
    expected = local.certify(pixels, budget=FIXED, seed=5).to_json()
    asked = {"PICTURE": in_base64(pixels), "budget": str(FIXED), "seed": 5}
    status, text = ask_in_json(server, "generate", **asked)
    assert (status, json.loads(text)["CERTIFICATE_JSON"]) == (200, expected)
    status, text = ask_in_json(server, "generate_stream", "dual_smoothing_stream", **asked)
    *_, last = re.findall(r"^data: (.*)$", text, re.M)
    assert (status, json.loads(last)["CERTIFICATE_JSON"]) == (200, expected)
    for wrong, line in {
        "%%%": "PICTURE is not one text in base64",
        base64.b64encode(b"no picture").decode(): "cannot read upload",
    }.items():
        status, text = ask_in_json(server, "generate", PICTURE=wrong)
        assert status == 400
        assert f"dualsmooth.bad-request: {line}" in json.loads(text)["error"]
    status, text = ask_in_json(server, "generate", budget="fixed:100")
    assert (status, "expected either IMAGE" in text) == (400, True)
    status, text = ask_in_json(server, "generate", IMAGE=[[[0.9, 0.1]]])  # Triton's own answer
    assert (status, "Shape does not match" in text) == (500, True)


def test_streaming(grpc_url: str, local: ds.Smoother) -> None:
    budget = ds.Adaptive(20_000, n0=20)
    with ds.connect(grpc_url) as remote:
        made = list(remote.certify_stream(IMAGES[5], budget=budget, seed=4))
    assert len(made) > 3
    assert all(a.passes < b.passes for a, b in pairwise(made[:-1]))
    assert all(a.radius <= b.radius for a, b in pairwise(made))
    assert made[0].radius < made[-1].radius
    assert made[-1].to_json() == local.certify(IMAGES[5], budget=budget, seed=4).to_json()


@pytest.mark.parametrize("model", ["classifier_0", "dual_smoothing_stream"])
def test_only_a_model_that_certifies_is_connected_to(url: str, model: str) -> None:
    with pytest.raises(ds.ServerError, match=f"model {model} does not answer as dual_smoothing does .*; connect to"):
        ds.connect(url, model=model)


def test_streaming_needs_grpc(server: TritonServer) -> None:
    with (
        ds.connect(f"http://127.0.0.1:{server.http}") as remote,
        pytest.raises(ds.InputError, match="over gRPC only"),
    ):
        next(remote.certify_stream(IMAGES[0]))


def test_networks_owned_by_triton(grpc_url: str, local: ds.Smoother) -> None:
    """BLS: the same votes, and the certificate says who ran the networks."""
    with ds.connect(grpc_url, model="over_bls") as remote:
        made = list(remote.certify_many(IMAGES[:4], budget=FIXED, seed=2))
        prediction = remote.predict(IMAGES[0], n=200, seed=2)
    here = list(local.certify_many(IMAGES[:4], budget=FIXED, seed=2))
    assert [(c.label, c.radius, c.tally.to_dict()) for c in made] == [
        (c.label, c.radius, c.tally.to_dict()) for c in here
    ]
    assert prediction == local.predict(IMAGES[0], n=200, seed=2)
    assert {(c.artefact.provider, c.artefact.engine) for c in made} == {("triton", "triton onnxruntime backend")}
    local.replay(made[0], IMAGES[0])


def test_base_models_with_their_production_configuration(server: TritonServer, local: ds.Smoother) -> None:
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    batch = np.stack(IMAGES)
    tensor = grpc.InferInput("x", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch)
    bundle = local.bundle
    names = ["variance_estimator", "classifier_0", "classifier_1"]
    for name, model in zip(names, (bundle.estimator, *bundle.classifiers), strict=True):
        assert client.get_model_config(name, as_json=True)["config"]["backend"] == "onnxruntime"
        logits = client.infer(name, [tensor]).as_numpy("logits")
        assert logits.argmax(1).tolist() == local.engine.votes(model, batch, 0.5, 2).tolist()
    client.close()


def metric(server: TritonServer, name: str, model: str) -> float:
    found = re.search(rf'^dualsmooth_{name}{{[^}}]*model="{model}"[^}}]*}} ([0-9.e+]+)$', server.read_metrics(), re.M)
    assert found, name
    return float(found[1])


def wait_for(what: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_metrics(server: TritonServer, remote: ds.RemoteSmoother) -> None:
    names = ["passes", "certificates", "predictions", "abstentions", "refusals", "seconds"]
    before = {name: metric(server, f"{name}_total", "dual_smoothing") for name in names}
    made = remote.certify(toys.image(0.225, 0.6), budget=FIXED)
    predicted = remote.predict(IMAGES[0], n=100)
    after = {name: metric(server, f"{name}_total", "dual_smoothing") - before[name] for name in names}
    assert after["passes"] == made.passes + predicted.passes
    assert (after["certificates"], after["predictions"]) == (1, 1)
    assert after["abstentions"] == made.abstained + predicted.abstained > 0
    assert after["seconds"] > 0
    assert metric(server, "provider", "dual_smoothing") == 1
    assert re.search(r'dualsmooth_provider{.*provider="cpu".*} 1', server.read_metrics())


def test_cancellation_stops_sampling(server: TritonServer, grpc_url: str) -> None:
    """On a real network, which would take minutes for the budget."""
    image = load_dataset(f"npz:{SHIPPED_IMAGES}").images[0]
    before, failures = (metric(server, name, "fashion") for name in ("passes_total", "failures_total"))
    with ds.connect(grpc_url, model="fashion") as remote:
        pending = remote.wire.send(remote.check_image(image), {"budget": "fixed:400000"})
        wait_for(lambda: metric(server, "passes_total", "fashion") > before)
        pending.cancel()
        wait_for(lambda: metric(server, "failures_total", "fashion") == failures + 1)
        passes = metric(server, "passes_total", "fashion")
        assert passes - before < 400_000
        remote.check_health()
        checked = 16 * (1 + len(remote.bundle.sigmas))  # at most, by the health check
    assert metric(server, "passes_total", "fashion") - passes <= checked


def test_stopping_a_stream_cancels_it(server: TritonServer, grpc_url: str) -> None:
    """On a real network, which is not done before the client has said so."""
    failures = metric(server, "failures_total", "fashion_stream")
    with ds.connect(grpc_url, model="fashion") as remote:
        stream = remote.certify_stream(
            load_dataset(f"npz:{SHIPPED_IMAGES}").images[0], budget=ds.Adaptive(400_000, tolerance=0.0), seed=4
        )
        next(stream)
        stream.close()
        wait_for(lambda: metric(server, "failures_total", "fashion_stream") == failures + 1)


def test_command_line(grpc_url: str, tmp_path: Any, toy_bundle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "image.npy", IMAGES[4])
    arguments = [str(tmp_path / "image.npy"), "--seed", "3", "--json"]
    out = []
    for source in (grpc_url, str(toy_bundle)):
        assert main(["certify", source, *arguments, "--budget", "fixed:400"]) == 0
        assert main(["predict", source, *arguments, "-n", "100"]) == 0
        out.append(capsys.readouterr().out)
    assert out[0] == out[1]
    assert main(["certify", "grpc://127.0.0.1:9", *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
