"""Hostile and damaged bundles: each is refused with one clear line, before ONNX Runtime sees any of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import toys
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import dualsmooth as ds
from dualsmooth.cli import main

NAME = "classifier_0.onnx"
FLOAT = TensorProto.FLOAT
N = helper.make_node


def make(path: Path) -> Path:
    return toys.write_bundle(
        path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.2, 0.4]
    )  # fmt: skip


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def put(path: Path, data: bytes, name: str = NAME) -> None:
    """Write a file and its true hash: an attacker can do that."""
    (path / name).write_bytes(data)
    edit_manifest(path, lambda m: m["files"].update({name: {"sha256": toys.sha256_of(path / name)}}))


def graph(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], None]:
    """An attack that edits the graph of a classifier, and states the hash of what it made."""

    def attack(path: Path) -> None:
        model = onnx.load(path / NAME)
        change(model)
        put(path, model.SerializeToString())

    return attack


def before(*nodes: onnx.NodeProto) -> Callable[[Path], None]:
    """An attack that lets `nodes` turn `x` into `y` before the network reads it."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "y"
        for node in reversed(nodes):
            model.graph.node.insert(0, node)

    return graph(change)


def constant(name: str, values: Any, dtype: Any = np.int64) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))


def growing(shape: list[int]) -> Callable[[Path], None]:
    def change(model: onnx.ModelProto) -> None:
        constant("huge", shape)(model)
        model.graph.node.insert(0, N("ConstantOfShape", ["huge"], ["zeros"]))

    return graph(change)


def external(location: str, length: int | None = None, offset: str = "0") -> Callable[[Path], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        size = len(tensor.raw_data)
        external_data_helper.set_external_data(tensor, location, length=size if length is None else length)
        tensor.ClearField("raw_data")
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = offset
        if offset != "0":
            tensor.external_data.add(key="offset", value=offset)

    return graph(change)


def with_data(attack: Callable[[Path], None]) -> Callable[[Path], None]:
    """The attack, with 16 bytes in weights.data, which the manifest lists."""

    def both(path: Path) -> None:
        put(path, bytes(16), "weights.data")
        attack(path)

    return both


def listing(name: str) -> Callable[[Path], None]:
    """An attack that lists a file of another name in the manifest."""
    return lambda path: edit_manifest(path, lambda m: m["files"].update({name: {"sha256": "0" * 64}}))


def truncated(path: Path) -> None:
    put(path, (path / NAME).read_bytes()[:-7])


def twice(path: Path) -> None:
    """Two graphs in one file: protocol buffers merge them, and a reader that takes the last sees another network."""
    data = (path / NAME).read_bytes()
    put(
        path,
        data + onnx.ModelProto(graph=onnx.GraphProto(node=[N("RandomNormalLike", ["x"], ["q"])])).SerializeToString(),
    )


def nested(model: onnx.ModelProto) -> None:
    """A random operator hidden in the branch of an If."""
    then = helper.make_graph(
        [N("RandomNormalLike", ["x"], ["t"])], "then", [], [helper.make_tensor_value_info("t", FLOAT, None)]
    )
    other = helper.make_graph(
        [N("Identity", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", FLOAT, None)]
    )
    constant("yes", True, bool)(model)
    model.graph.node[0].input[0] = "y"
    model.graph.node.insert(0, N("If", ["yes"], ["y"], then_branch=then, else_branch=other))


def function(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "F", ["a"], ["b"], [N("Identity", ["a"], ["b"])], opsets))
    model.graph.node[0].input[0] = "y"
    model.graph.node.insert(0, N("F", ["x"], ["y"], domain="mine"))


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [N("Identity", ["more"], ["again"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("more", 9, [])],
        [helper.make_tensor_value_info("again", 9, [])],
    )  # fmt: skip
    constant("yes", True, bool)(model)
    model.graph.node.insert(0, N("Loop", ["", "yes"], [], body=body))


def dropout(model: onnx.ModelProto) -> None:
    constant("yes", True, bool)(model)
    model.graph.node[0].input[0] = "y"
    model.graph.node.insert(0, N("Dropout", ["x", "", "yes"], ["y"]))


def batch_norm(model: onnx.ModelProto) -> None:
    for name, values in (("one", [1.0]), ("zero", [0.0])):
        constant(name, values, np.float32)(model)
    model.graph.node[0].input[0] = "y"
    node = N("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y", "m", "v"], training_mode=1)
    model.graph.node.insert(0, node)


def link(path: Path) -> None:
    (path / NAME).rename(path.parent / "elsewhere.onnx")
    (path / NAME).symlink_to(path.parent / "elsewhere.onnx")


def link_manifest(path: Path) -> None:
    (path / "manifest.json").rename(path.parent / "elsewhere.json")
    (path / "manifest.json").symlink_to(path.parent / "elsewhere.json")


def pipe(path: Path) -> None:
    (path / NAME).unlink()
    os.mkfifo(path / NAME)


def pipe_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def flipped(path: Path) -> None:
    data = bytearray((path / NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (path / NAME).write_bytes(data)


def doubled_key(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"sigma_e"', '"sigma_e": 9.0, "sigma_e"', 1))


def width(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 256


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


def huge_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def negative_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -2


def huge_value(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("f", FLOAT, ["batch", 1 << 60]))


def multiplying(model: onnx.ModelProto) -> None:
    """Forty doublings of both sides: no single number in the file is large."""
    constant("two", [1, 4, 4, 4])(model)
    names = ["x", *(f"t{i}" for i in range(40))]
    for i in range(40):
        model.graph.node.insert(i, N("Tile", [names[i], "two"], [names[i + 1]]))


def strings(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"text"]))


def domain_import(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def default_sigma(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("sigma", FLOAT, []))
    constant("sigma", 0.0, np.float32)(model)


def third_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("secret", FLOAT, []))


def wide_sigma(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("sigma", FLOAT, ["n"]))


def shape_less(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def two_places(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].float_data.extend([1.0] * 4)


Attack = Callable[[Path], Any]
ATTACKS: dict[str, tuple[Attack, str]] = {
    # files
    "a flipped bit": (flipped, "altered or damaged"),
    "an emptied file": (lambda p: (p / NAME).write_bytes(b""), "altered or damaged"),
    "a missing file": (lambda p: (p / NAME).unlink(), "not a regular file"),
    "a link out of the bundle": (link, "not a regular file"),
    "a linked manifest": (link_manifest, "not a regular file"),
    "a pipe in place of a network": (pipe, "not a regular file"),
    "a pipe in place of the manifest": (pipe_manifest, "not a regular file"),
    "a folder in place of a network": (lambda p: ((p / NAME).unlink(), (p / NAME).mkdir()), "not a regular file"),
    "a path out of the bundle": (
        listing("../x.onnx"), "plain file name"),
    "an absolute path": (
        listing("/etc/x.onnx"), "plain file name"),
    "a pickle": (lambda p: put(p, b"\x80\x04.", "weights.pt"), "plain file name"),
    "a file that nothing uses": (lambda p: put(p, b"MZ", "payload.data"), "no model uses"),
    # manifest
    "a key twice": (doubled_key, "twice"),
    "a number that is none": (lambda p: edit_manifest(p, lambda m: m.update(provenance=float("nan"))), "not JSON"),
    "a normalised range": (lambda p: edit_manifest(p, lambda m: m["input"].update(range=[-1, 1])), "normalisation"),
    "a later version": (lambda p: edit_manifest(p, lambda m: m.update(version=2)), "version must be 1"),
    "a manifest without end": (lambda p: (p / "manifest.json").write_bytes(b"[" * (1 << 24) + b"]"), "more than"),
    # not plain ONNX
    "garbage": (lambda p: put(p, b"not a network"), "not an ONNX file"),
    "an empty network": (lambda p: put(p, b""), "is empty"),
    "a truncated network": (truncated, "cut off"),
    "trailing bytes": (lambda p: put(p, (p / NAME).read_bytes() + b"\x00\x00"), "field 0"),
    "an unknown field": (lambda p: put(p, (p / NAME).read_bytes() + b"\xa2\x06\x00"), "field 100"),
    "two graphs": (twice, "occurs twice"),
    "half a million graphs": (lambda p: put(p, b"\x3a\x00" * 500_000), "occurs twice"),
    # signature
    "another width": (graph(width), "expected x float32"),
    "a fixed batch": (graph(fixed_batch), "dynamic N"),
    "an input of no shape": (graph(shape_less), "no declared shape"),
    "a third input": (graph(third_input), "secret"),
    "a sigma for each row": (graph(wide_sigma), "scalar sigma"),
    "an input with a default": (graph(default_sigma), "from outside only"),
    # what is in the graph
    "RandomNormalLike": (before(N("RandomNormalLike", ["x"], ["y"])), "random numbers"),
    "RandomUniformLike": (before(N("RandomUniformLike", ["x"], ["y"])), "random numbers"),
    "RandomNormal": (before(N("RandomNormal", [], ["r"], shape=[1, 1, 2]), N("Add", ["x", "r"], ["y"])), "random"),
    "RandomUniform": (before(N("RandomUniform", [], ["r"], shape=[2]), N("Add", ["x", "r"], ["y"])), "random numbers"),
    "Bernoulli": (before(N("Bernoulli", ["x"], ["y"])), "random numbers"),
    "Multinomial": (before(N("Multinomial", ["x"], ["y"])), "random numbers"),
    "Dropout that drops": (graph(dropout), "random numbers"),
    "a random operator in a branch": (graph(nested), "random numbers"),
    "statistics of the batch": (graph(batch_norm), "statistics of the batch"),
    "a scale of the whole batch": (
        before(N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), N("DequantizeLinear", ["q", "s", "z"], ["y"])),
        "depends on the whole batch",
    ),
    "a custom domain": (before(N("Evil", ["x"], ["y"], domain="evil.example")), "domain 'evil.example'"),
    "an imported domain": (graph(domain_import), "domain 'com.microsoft'"),
    "an unknown operator": (before(N("LaunchMissiles", ["x"], ["y"])), "LaunchMissiles"),
    "a loop without end": (graph(loop), "'Loop'"),
    "a function of its own": (graph(function), "functions of its own"),
    "an old operator set": (graph(old_opset), "opsets"),
    # sizes
    "huge declared dimensions": (graph(huge_dims), "declares the shape"),
    "negative dimensions": (graph(negative_dims), "cannot be negative"),
    "a huge intermediate shape": (graph(huge_value), "sizes are 0 to"),
    "a huge constant of shape": (growing([1 << 20, 1 << 20]), "for one image"),
    "growth by small steps": (graph(multiplying), "for one image"),
    "a sparse tensor": (graph(sparse), "sparse"),
    "strings": (graph(strings), "element type"),
    "data in two kinds": (graph(two_places), "but holds -1"),
    # external data
    "data outside": (external("../secret.data"), "does not list"),
    "data at an absolute path": (external("/etc/passwd"), "does not list"),
    "data in memory": (external("*/_ORT_MEM_ADDR_/*"), "does not list"),
    "data in a network": (external("estimator.onnx"), "does not list"),
    "data in the manifest": (external("manifest.json"), "does not list"),
    "data that are not listed": (external("weights.data"), "does not list"),
    "data beyond the end": (with_data(external("weights.data", offset="8")), "offset 8 of weights.data"),
    "data at a negative offset": (with_data(external("weights.data", offset="-8")), "offset -8"),
    "more data than the shape": (with_data(external("weights.data", length=1 << 40)), "declares the shape"),
}  # fmt: skip


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls that would open a session; there must be none."""
    opened: list[Any] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **kwargs: opened.append(args))
    return opened


@pytest.mark.parametrize("attack", ATTACKS)
def test_refused_with_one_line_and_not_executed(
    tmp_path: Path, attack: str, no_session: list[Any], capsys: Any
) -> None:
    path = make(tmp_path / "bundle")
    change, message = ATTACKS[attack]
    change(path)
    with pytest.raises(ds.BundleError) as caught:
        ds.load(path)
    line = str(caught.value)
    assert message in line
    assert "\n" not in line
    assert len(line) < 500
    assert no_session == []
    assert main(["certify", str(path), "image.png"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert no_session == []


def test_the_bundle_that_is_attacked_is_a_good_one(tmp_path: Path, no_session: list[Any]) -> None:
    """Otherwise the test above shows nothing: unchanged, the session is what comes next."""
    ds.read_bundle(make(tmp_path / "bundle"))
    with pytest.raises(AttributeError):
        ds.load(tmp_path / "bundle")
    assert len(no_session) == 1


def test_honest_external_data_are_accepted(tmp_path: Path) -> None:
    path = make(tmp_path / "bundle")
    model = onnx.load(path / NAME)
    put(path, bytes(8) + bytes(model.graph.initializer[0].raw_data), "weights.data")
    external("weights.data", offset="8")(path)
    bundle = ds.read_bundle(path)
    assert "weights.data" in bundle.files
    cert = ds.load(path, threads=1).certify(toys.image(0.9, 0.1), budget=ds.Fixed(200, n0=20), seed=1)
    assert "weights.data" in cert.artefact.files


def test_batch_statistics_would_let_one_row_decide_another() -> None:
    """Why such operators are refused: the vote of the first row depends on what else is in the batch."""
    nodes = [
        N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, FLOAT, ["n"]) for n in ("x", "y")]
    built = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    alone, together = (session.run(None, {"x": np.array(x, np.float32)})[0][0] for x in ([0.3], [0.3, 1000.0]))
    assert abs(alone - 0.3) < 0.01
    assert together == 0.0
