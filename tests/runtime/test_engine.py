"""The engine: votes of real ONNX networks, and every failure an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toys
from onnx import TensorProto, helper

import dualsmooth as ds
from dualsmooth.runtime import engine as engine_module
from dualsmooth.runtime.bundle import BaseModel
from dualsmooth.runtime.engine import Engine

CLASSIFIER = BaseModel(("classifier_0.onnx",))


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
    engine = Engine(ds.read_bundle(make(tmp_path / "b")))
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
    engine = Engine(ds.read_bundle(tmp_path / "b"))
    batch = np.full((5, 1, 1, 2), -9, np.float32)
    with pytest.raises(ds.EngineError, match=r"classifier_0\.onnx") as caught:
        engine.votes(CLASSIFIER, batch, 0.25, 3)
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
        Engine(ds.read_bundle(tmp_path / "b"))
    assert "\n" not in str(caught.value)


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
    engine = Engine(ds.read_bundle(tmp_path / "b"))
    assert engine.takes_sigma(CLASSIFIER)
    assert not engine.takes_sigma(BaseModel(("classifier_1.onnx",)))
    batch = np.full((4, 1, 1, 2), 0.3, np.float32)
    assert engine.votes(CLASSIFIER, batch, 0.25, 3).tolist() == [2] * 4
    assert engine.votes(CLASSIFIER, batch, 0.5, 3).tolist() == [0] * 4


def test_a_file_that_changes_after_the_check_is_refused(tmp_path: Path) -> None:
    bundle = ds.read_bundle(make(tmp_path / "b"))
    (tmp_path / "b" / "classifier_0.onnx").write_bytes(toys.steps_onnx(0, [0.9, 0.95]))
    with pytest.raises(ds.BundleError, match="changed"):
        Engine(bundle)


def test_unknown_providers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ds.InputError, match="unknown"):
        Engine(ds.read_bundle(make(tmp_path / "b")), "abacus")


def test_missing_engine_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ds.ProviderError, match="pip install"):
        Engine(ds.read_bundle(make(tmp_path / "b")))


def test_provider_names_are_those_of_onnx_runtime() -> None:
    assert engine_module.PROVIDERS["cpu"] == "CPUExecutionProvider"


@pytest.mark.parametrize("threads", [-1, 1025, 10**30, 1.5])
def test_threads_that_no_machine_has_are_refused(tmp_path: Path, threads: Any) -> None:
    """ONNX Runtime hangs where the system refuses to make a thread."""
    with pytest.raises(ds.InputError, match="threads is"):
        ds.load(make(tmp_path / "b"), threads=threads)
