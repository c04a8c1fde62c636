"""The engine: votes of real ONNX networks, and every failure an error.

Where the environment offers OpenVINO, these tests run on it: `make test` runs them a second time in such a one.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import toys
from onnx import TensorProto, helper

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.engine import warm_up
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import PROVIDERS, provider_of

CLASSIFIER = BaseModel(("classifier_0.onnx",))
PROVIDER = "openvino" if PROVIDERS["openvino"].onnxruntime_name in onnxruntime.get_available_providers() else "cpu"

ON = provider_of(PROVIDER)


def opened(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine(ds.read_bundle(path), provider_of(PROVIDER, options), threads=1)


def make(path: Path) -> Path:
    return toys.write_bundle(
        path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[[0.2, 0.4], [0.1, 0.3]]
    )


def replace(path: Path, data: bytes, name: str = "classifier_0.onnx") -> None:
    """Put another network in a bundle, with a manifest that fits its hash."""
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": toys.sha256_of(path / name)}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("size", [1, 3, 256])
def test_votes_are_what_the_network_says(tmp_path: Path, size: int) -> None:
    engine = opened(make(tmp_path / "b"))
    t = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
    batch = np.zeros((size, 1, 1, 2), np.float32)
    batch[:, 0, 0, 0] = t
    votes = engine.votes(CLASSIFIER, batch, 0.25, 3)
    assert votes.dtype == np.int64
    assert votes.tolist() == ((t >= np.float32(0.2)).astype(int) + (t >= np.float32(0.4))).tolist()


def node_graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[object]]] | None = None,
    output: tuple[int, list[object]] = (TensorProto.FLOAT, ["n", 3]),
    output_name: str = "logits",
) -> bytes:
    inputs = inputs or {"x": (TensorProto.FLOAT, ["n", 1, 1, 2])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(output_name, *output)],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [2, 3], [0, 1, 2, 0, 0, 0]),
            helper.make_tensor("start", TensorProto.INT64, [1], [1]),
            helper.make_tensor("end", TensorProto.INT64, [1], [9999]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


N = helper.make_node
FLAT = N("Flatten", ["x"], ["f"])
GRAPHS = {
    "log of a negative": [FLAT, N("MatMul", ["f", "w"], ["m"]), N("Log", ["m"], ["logits"])],
    "drops a row": [FLAT, N("MatMul", ["f", "w"], ["m"]), N("Slice", ["m", "start", "end"], ["logits"])],
    "index out of range": [
        FLAT,
        N("Cast", ["f"], ["i"], to=TensorProto.INT64),
        N("GatherElements", ["f", "i"], ["g"], axis=1),
        N("MatMul", ["g", "w"], ["logits"]),
    ],
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_failure_never_becomes_a_vote(tmp_path: Path, graph: str) -> None:
    replace(make(tmp_path / "b"), node_graph(GRAPHS[graph]))
    engine = opened(tmp_path / "b")
    batch = np.full((5, 1, 1, 2), -9, np.float32)
    with pytest.raises(ds.EngineError, match=r"classifier_0\.onnx") as caught:
        engine.votes(CLASSIFIER, batch, 0.25, 3)
    assert "\n" not in str(caught.value)


MIXING = {
    "normalised by the batch": [
        N("ReduceMean", ["x", "first"], ["mean"]),
        N("Sub", ["x", "mean"], ["c"]),
    ],
    "softmax over the batch": [N("Softmax", ["x"], ["c"], axis=0)],
    "sums of the rows so far": [N("CumSum", ["x", "zero"], ["c"])],
    "sums of the rows to come": [N("CumSum", ["x", "zero"], ["c"], reverse=1, exclusive=1)],
}


@pytest.mark.parametrize("graph", MIXING)
def test_networks_that_mix_the_rows_of_a_batch_are_refused(tmp_path: Path, graph: str) -> None:
    """Their votes are not independent: the bounds of a certificate would mean nothing."""
    constants = [
        N("Constant", [], ["first"], value=helper.make_tensor("f", TensorProto.INT64, [1], [0])),
        N("Constant", [], ["zero"], value=helper.make_tensor("z", TensorProto.INT64, [], [0])),
    ]
    nodes = [*constants, *MIXING[graph], N("Flatten", ["c"], ["f"]), N("MatMul", ["f", "w"], ["logits"])]
    replace(make(tmp_path / "b"), node_graph(nodes))
    with pytest.raises(ds.BundleError, match=r"classifier_0\.onnx(: .*mixes the images| lets one image)") as caught:
        opened(tmp_path / "b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "graph",
    [
        toys.steps_onnx(0, [0.2]),
        node_graph([N("MatMul", ["x", "w"], ["logits"])], output=(TensorProto.FLOAT, ["n", 1, 1, 3])),
        node_graph([N("Identity", ["f"], ["logits"]), FLAT][::-1], output=(TensorProto.FLOAT, ["n", 2])),
        node_graph([FLAT, N("MatMul", ["f", "w"], ["scores"])], output_name="scores"),
        node_graph([FLAT, N("MatMul", ["f", "w"], ["logits"])], {"x": (TensorProto.FLOAT, [256, 1, 1, 2])}),
        node_graph([FLAT, N("MatMul", ["f", "w"], ["logits"])], {"x": (TensorProto.FLOAT, ["n", 2, 1, 1])}),
        node_graph([N("Flatten", ["y"], ["f"]), N("MatMul", ["f", "w"], ["logits"])], {"y": (1, ["n", 1, 1, 2])}),
        node_graph(
            [N("Cast", ["x"], ["c"], to=1), N("Flatten", ["c"], ["f"]), N("MatMul", ["f", "w"], ["logits"])],
            {"x": (TensorProto.DOUBLE, ["n", 1, 1, 2])},
        ),
        b"",
        b"not a network",
    ],
    ids=["classes", "rank", "width", "output", "fixed N", "shape", "input", "double", "empty", "garbage"],
)
def test_graphs_that_do_not_fit_are_refused(tmp_path: Path, graph: bytes) -> None:
    replace(make(tmp_path / "b"), graph)
    with pytest.raises(ds.BundleError, match=r"classifier_0\.onnx") as caught:
        OnnxEngine(ds.read_bundle(tmp_path / "b"))
    assert "\n" not in str(caught.value)


def test_bf16_on_the_cpu_says_where_it_runs(tmp_path: Path) -> None:
    """Not that the bundle is broken: it is fine, and made for accelerators."""
    half = TensorProto.BFLOAT16
    nodes = [N("Cast", ["x"], ["h"], to=half), N("Sinh", ["h"], ["s"]), N("Cast", ["s"], ["y"], to=TensorProto.FLOAT)]
    model = onnx.load_from_string(node_graph([*nodes, N("Flatten", ["y"], ["f"]), N("MatMul", ["f", "w"], ["logits"])]))
    model.opset_import[0].version = 22
    path = make(tmp_path / "b")
    replace(path, model.SerializeToString())
    manifest = json.loads((path / "manifest.json").read_text()) | {"precision": "bf16"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ds.ProviderError, match=r"no bfloat16 arithmetic for classifier_0\.onnx .* cuda, tensorrt or openvino"
    ):
        ds.load(path, "cpu")


def test_sigma_reaches_networks_that_take_it(tmp_path: Path) -> None:
    """logits = [0, t, 2t] - sigma * [0, 1, 2]: the vote is 2 where t > sigma."""
    nodes = [
        FLAT,
        N("MatMul", ["f", "w"], ["m"]),
        N("Constant", [], ["steps"], value=helper.make_tensor("v", 1, [3], [0, 1, 2])),
        N("Mul", ["sigma", "steps"], ["s"]),
        N("Sub", ["m", "s"], ["logits"]),
    ]
    inputs: dict[str, tuple[int, list[object]]] = {"x": (1, ["n", 1, 1, 2]), "sigma": (1, [])}
    replace(make(tmp_path / "b"), node_graph(nodes, inputs))
    engine = opened(tmp_path / "b")
    assert engine.takes_sigma(CLASSIFIER)
    assert not engine.takes_sigma(BaseModel(("classifier_1.onnx",)))
    batch = np.full((4, 1, 1, 2), 0.3, np.float32)
    assert engine.votes(CLASSIFIER, batch, 0.25, 3).tolist() == [2] * 4
    assert engine.votes(CLASSIFIER, batch, 0.5, 3).tolist() == [0] * 4


def test_a_file_that_changes_after_the_check_is_refused(tmp_path: Path) -> None:
    bundle = ds.read_bundle(make(tmp_path / "b"))
    (tmp_path / "b" / "classifier_0.onnx").write_bytes(toys.steps_onnx(0, [0.9, 0.95]))
    with pytest.raises(ds.BundleError, match="changed"):
        OnnxEngine(bundle)


def test_unknown_providers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ds.InputError, match="unknown"):
        ds.load(make(tmp_path / "b"), "abacus")


def test_missing_engine_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ds.ProviderError, match="pip install"):
        OnnxEngine(ds.read_bundle(make(tmp_path / "b")))


def test_the_provider_that_was_asked_for_runs(tmp_path: Path) -> None:
    engine = opened(make(tmp_path / "b"))
    assert engine.provider == PROVIDER
    assert engine._sessions["estimator.onnx"].get_providers()[0] == ON.onnxruntime_name
    assert engine.name.startswith(f"onnxruntime {onnxruntime.__version__}")
    assert ("float layers in fp32" in engine.name) == (PROVIDER == "openvino")


def quantised(cut: float) -> bytes:
    """Votes 1 where t >= cut, on 8-bit activations and weights (QDQ, unsigned and signed, scale 1/64 and 1/127)."""
    weights = np.array([[0, 127], [0, 0]], np.int8)
    parts = {
        "xs": np.array(1 / 64, np.float32), "xz": np.array(128, np.uint8), "w": weights,
        "ws": np.array(1 / 127, np.float32), "wz": np.array(0, np.int8), "b": np.array([0, -cut], np.float32),
    }  # fmt: skip
    nodes = [
        FLAT, N("QuantizeLinear", ["f", "xs", "xz"], ["q"]), N("DequantizeLinear", ["q", "xs", "xz"], ["d"]),
        N("DequantizeLinear", ["w", "ws", "wz"], ["v"]), N("MatMul", ["d", "v"], ["m"]),
        N("Add", ["m", "b"], ["logits"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 1, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in parts.items()],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_certificates_of_this_provider_verify(tmp_path: Path, precision: str) -> None:
    """A closed form: P(vote = 1) = Phi((t - cut) / sigma), so the radius stays below the true distance and near it."""
    path = toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.25, 0.25]
    )
    if precision == "int8":
        for level in (0, 1):
            replace(path, quantised(0.25), f"classifier_{level}.onnx")
        manifest = json.loads((path / "manifest.json").read_text()) | {"precision": "int8"}
        (path / "manifest.json").write_text(json.dumps(manifest))
    smoother, image = ds.load(path, PROVIDER, threads=1), toys.image(0.75, 0.1)
    cert = smoother.certify(image, rule="single:0.5", budget=ds.Fixed(20_000), seed=1)
    assert cert.label == 1
    assert 0.45 < cert.radius < 0.51
    assert (cert.artefact.provider, cert.artefact.precision) == (PROVIDER, precision)
    smoother.replay(ds.Certificate.from_json(cert.to_json()), image)


def lose(engine: OnnxEngine, name: str, after: int) -> None:
    """Let a session report the CPU provider, as after a fallback, from its `after`-th run on."""
    session, runs = engine._sessions[name], 0

    def run(outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
        nonlocal runs
        runs += 1
        return session.run(outputs, feed)

    def providers() -> list[str]:
        return ["FallbackExecutionProvider" if runs >= after else ON.onnxruntime_name]

    engine._sessions[name] = SimpleNamespace(run=run, get_providers=providers)


@pytest.mark.parametrize("after", [1, 7])
def test_a_provider_that_is_lost_during_a_run_ends_it(tmp_path: Path, after: int) -> None:
    smoother = ds.load(make(tmp_path / "b"), PROVIDER, threads=1, batch_size=64)
    lose(smoother.engine, "classifier_0.onnx", after)
    done: list[ds.Certificate] = []
    with pytest.raises(ds.ProviderError, match=f"{PROVIDER} was asked for but FallbackExecutionProvider runs"):
        done.extend(smoother.certify_many([toys.image(0.1, 0.0)] * 2, budget=ds.Fixed(2000), seed=1))
    assert done == []


def padded(bundle: Bundle, fixed: int) -> tuple[OnnxEngine, list[np.ndarray]]:
    """An engine that fills batches up, and the batches that its session sees."""
    engine, seen = OnnxEngine(bundle, ON, threads=1), []
    session = engine._sessions["classifier_0.onnx"]

    def run(outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
        seen.append(feed["x"].copy())
        return session.run(outputs, feed)

    engine._sessions["classifier_0.onnx"] = SimpleNamespace(run=run, get_providers=session.get_providers)
    engine._fixed = fixed
    return engine, seen


@pytest.mark.parametrize("rows", [1, 63, 64, 65])
def test_rows_that_fill_a_batch_up_are_no_votes(tmp_path: Path, rows: int) -> None:
    engine, seen = padded(ds.read_bundle(make(tmp_path / "b")), 64)
    batch = np.full((rows, 1, 1, 2), 0.3, np.float32)
    assert engine.votes(CLASSIFIER, batch, 0.25, 3).tolist() == [1] * rows
    assert [len(x) for x in seen] == [max(rows, 64)]
    assert not seen[0][rows:].any()


def test_a_filled_up_row_may_be_anything(tmp_path: Path) -> None:
    """log(x) of a filled-up row is minus infinity: it says nothing about the votes; in a real row it is an error."""
    path = make(tmp_path / "b")
    replace(path, node_graph([FLAT, N("Log", ["f"], ["l"]), N("MatMul", ["l", "w"], ["logits"])]))
    engine, _ = padded(ds.read_bundle(path), 64)
    batch = np.full((5, 1, 1, 2), 0.3, np.float32)
    assert len(engine.votes(CLASSIFIER, batch, 0.25, 3)) == 5
    batch[2] = 0
    with pytest.raises(ds.EngineError, match="NaN or infinite"):
        engine.votes(CLASSIFIER, batch, 0.25, 3)


def test_warm_up_runs_every_network_once(tmp_path: Path) -> None:
    bundle = ds.read_bundle(make(tmp_path / "b"))
    assert list(warm_up(bundle, opened(make(tmp_path / "c")), 8)) == [
        "estimator.onnx", "classifier_0.onnx", "classifier_1.onnx"
    ]  # fmt: skip


def test_options_do_not_change_votes(tmp_path: Path) -> None:
    path = make(tmp_path / "b")
    batch = np.random.default_rng(0).uniform(-1, 1, (100, 1, 1, 2)).astype(np.float32)
    given = {"arena": False, "spinning": True} if PROVIDER == "cpu" else {"streams": 2}
    engine = opened(path, **given)
    assert (engine.votes(CLASSIFIER, batch, 0.25, 3) == opened(path).votes(CLASSIFIER, batch, 0.25, 3)).all()


@pytest.mark.parametrize("rows", [1, 20, 100, 256])
def test_parts_of_a_batch_that_run_side_by_side_change_no_vote(tmp_path: Path, rows: int) -> None:
    bundle = ds.read_bundle(make(tmp_path / "b"))
    batch = np.random.default_rng(0).uniform(-1, 1, (rows, 1, 1, 2)).astype(np.float32)
    expected = opened(bundle.path).votes(CLASSIFIER, batch, 0.25, 3)
    engine = OnnxEngine(bundle, ON, threads=2)
    seen, session = [], engine._sessions["classifier_0.onnx"]

    def run(outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
        seen.append(len(feed["x"]))
        return session.run(outputs, feed)

    engine._sessions["classifier_0.onnx"] = SimpleNamespace(run=run, get_providers=session.get_providers)
    assert (engine.votes(CLASSIFIER, batch, 0.25, 3) == expected).all()
    assert sum(seen) == rows
    assert len(seen) == {1: 1, 20: 2, 100: 2, 256: 4}[rows]


@pytest.mark.parametrize("bad", [0, 255])
def test_a_part_that_fails_is_a_failure_of_the_batch(tmp_path: Path, bad: int) -> None:
    replace(make(tmp_path / "b"), node_graph([FLAT, N("Log", ["f"], ["l"]), N("MatMul", ["l", "w"], ["logits"])]))
    engine = OnnxEngine(ds.read_bundle(tmp_path / "b"), ON, threads=2)
    batch = np.full((256, 1, 1, 2), 0.5, np.float32)
    assert len(engine.votes(CLASSIFIER, batch, 0.25, 3)) == 256
    batch[bad] = -1
    with pytest.raises(ds.EngineError, match="NaN or infinite"):
        engine.votes(CLASSIFIER, batch, 0.25, 3)


def test_one_caller_alone_gets_all_threads(tmp_path: Path) -> None:
    """What the bench compares with: the session as it is without us."""
    engine = OnnxEngine(ds.read_bundle(make(tmp_path / "b")), ON, threads=2)
    threads = [s.get_session_options().intra_op_num_threads for s in (
        engine._sessions["classifier_0.onnx"], engine.session("classifier_0.onnx"))]  # fmt: skip
    assert threads == [1, 2]
    assert engine.session("classifier_0.onnx").get_providers()[0] == ON.onnxruntime_name


@pytest.mark.parametrize("threads", [-1, 1025, 10**30, 1.5])
def test_threads_that_no_machine_has_are_refused(tmp_path: Path, threads: Any) -> None:
    """ONNX Runtime hangs where the system refuses to make a thread."""
    with pytest.raises(ds.InputError, match="threads is"):
        ds.load(make(tmp_path / "b"), threads=threads)
