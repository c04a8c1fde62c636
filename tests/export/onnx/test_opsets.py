"""Operators whose form changed compute after the conversion what ONNX Runtime computes before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.opsets.convert import CHANGES, NEWEST, convert
from dualsmooth.runtime.errors import BundleError

N = helper.make_node
SHAPE = (3, 4, 6)
RNG = np.random.default_rng(3)
S = np.array([1, 1, 2, 3], np.float32)
MIXED = np.array([1, 1, 0.5, 2], np.float32)
STATE = {k: RNG.random(SHAPE).astype(np.float32) + 0.5 for k in ("scale", "b", "m", "v")}
CHANNELS = {k: RNG.random(3).astype(np.float32) + 0.5 for k in ("scale", "b", "m", "v")}
NORM = ["image", "scale", "b", "m", "v"]

FORMS: dict[str, tuple[range, list[onnx.NodeProto], dict[str, Any]]] = {
    "upsample by attribute": (range(7, 9), [N("Upsample", ["image"], ["y"], scales=S, mode="linear")], {}),
    "upsample linear": (range(9, 10), [N("Upsample", ["image", "s"], ["y"], mode="linear")], {"s": S}),
    "upsample nearest": (range(9, 10), [N("Upsample", ["image", "s"], ["y"], mode="nearest")], {"s": S}),
    "resize linear": (range(10, 11), [N("Resize", ["image", "s"], ["y"], mode="linear")], {"s": S}),
    "resize nearest": (range(10, 11), [N("Resize", ["image", "s"], ["y"])], {"s": S}),
    "resize nearest up and down": (range(10, 11), [N("Resize", ["image", "s"], ["y"])], {"s": MIXED}),
    **{f"{op} axis {a}": (range(7, 13), [N(op, ["image"], ["y"], **({} if a is None else {"axis": a}))], {})
       for op in ("Softmax", "LogSoftmax", "Hardmax") for a in (None, 1, 2, 3)},
    "softmax axis -2": (range(11, 13), [N("Softmax", ["image"], ["y"], axis=-2)], {}),
    "clip": (range(7, 11), [N("Clip", ["image"], ["y"], min=0.2, max=0.7)], {}),
    "clip one side": (range(7, 11), [N("Clip", ["image"], ["y"], max=0.7)], {}),
    "pad": (range(7, 11), [N("Pad", ["image"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.3)], {}),
    "pad reflect": (range(7, 11), [N("Pad", ["image"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect")], {}),
    "slice": (range(7, 10), [N("Slice", ["image"], ["y"], starts=[1, -4], ends=[9, -1], axes=[2, 3])], {}),
    "slice without axes": (range(7, 10), [N("Slice", ["image"], ["y"], starts=[0, 1], ends=[1 << 30, 3])], {}),
    "top k": (range(7, 10), [N("TopK", ["image"], ["y", "i"], k=2, axis=2)], {}),
    "squeeze": (range(7, 13), [N("GlobalAveragePool", ["image"], ["p"]), N("Squeeze", ["p"], ["y"], axes=[2, 3])], {}),
    "unsqueeze": (range(7, 13), [N("Unsqueeze", ["image"], ["y"], axes=[1, 3])], {}),
    "split": (range(7, 13), [N("Split", ["image"], ["a", "b"], axis=3, split=[2, 4]),
                             N("Concat", ["b", "a"], ["y"], axis=3)], {}),
    "reduce sum": (range(7, 13), [N("ReduceSum", ["image"], ["y"], axes=[2], keepdims=0)], {}),
    "reduce mean": (range(7, 13), [N("ReduceMean", ["image"], ["y"], axes=[3])], {}),
    "dropout": (range(7, 12), [N("Dropout", ["image"], ["y"], ratio=0.4)], {}),
    "batch norm": (range(7, 13), [N("BatchNormalization", NORM, ["y"])], CHANNELS),
    "batch norm by place": (range(7, 9), [N("BatchNormalization", NORM, ["y"], spatial=0)], STATE),
    "gemm": (range(7, 13), [N("Flatten", ["image"], ["f"]), N("Gemm", ["f", "w", "c"], ["y"], transB=1)],
             {"w": RNG.random((5, 72)).astype(np.float32), "c": np.ones(5, np.float32)}),
    "average pool": (range(7, 13), [N("AveragePool", ["image"], ["y"], kernel_shape=[3, 2], pads=[1, 1, 1, 1],
                                      strides=[2, 2], count_include_pad=1)], {}),
    "scatter": (range(9, 11), [N("Scatter", ["image", "i", "u"], ["y"], axis=1)],
                {"i": np.zeros((1, 1, 1, 1), np.int64), "u": np.ones((1, 1, 1, 1), np.float32)}),
}  # fmt: skip
PAIRS = [(name, opset) for name, (opsets, _, _) in FORMS.items() for opset in opsets]


def write(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int) -> Path:
    """`nodes` from `image` to `y`, then the mean over all but the batch under two weightings."""
    tail = [
        N("Flatten", ["y"], ["flat_y"]), N("Sin", ["flat_y"], ["wave"]),
        N("ReduceMean", ["wave"], ["low"], axes=[1]), N("ReduceMax", ["flat_y"], ["high"], axes=[1]),
        N("Concat", ["low", "high"], ["scores"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        [*nodes, *tail], "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("operator", "since"), [(op, form.since) for form in CHANGES for op in form.operators])
def test_the_standard_changed_a_form_where_the_table_says(operator: str, since: int) -> None:
    assert onnx.defs.get_schema(operator, since).since_version == since


def run(source: bytes, feed: dict[str, Any]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize(("name", "opset"), PAIRS)
def test_an_old_form_computes_the_same(tmp_path: Path, name: str, opset: int) -> None:
    _, nodes, constants = FORMS[name]
    path = write(tmp_path / "a.onnx", nodes, constants, opset)
    x = np.random.default_rng(5).standard_normal((5, *SHAPE)).astype(np.float32)
    if name == "scatter":
        x = x[:1]  # it writes into the first image of a batch: not a base model, but converted rightly
        made = convert(onnx.load(path), 13, "a")
        assert np.array_equal(run(made.SerializeToString(), {"image": x}), run(path.read_bytes(), {"image": x}))
        return
    model = load_onnx(path, SHAPE)
    assert model.opset_import[0].version == 13
    found, expected = run(model.SerializeToString(), {"x": x}), run(path.read_bytes(), {"image": x})
    np.testing.assert_allclose(found, expected, atol=1e-5)


GROUPS = {k: RNG.random(2).astype(np.float32) for k in ("scale", "b")}
NEWER: dict[str, tuple[int, list[onnx.NodeProto], dict[str, Any]]] = {
    "reduce": (13, [N("ReduceL2", ["image"], ["y"], axes=[2, 3], keepdims=0)], {}),
    "split in halves": (13, [N("Split", ["image"], ["a", "b"], axis=3), N("Concat", ["b", "a"], ["y"], axis=3)], {}),
    "from 9 at once": (9, [N("Clip", ["image"], ["c"], min=0.1), N("Softmax", ["c"], ["y"])], {}),
}


@pytest.mark.parametrize("name", NEWER)
def test_forms_of_13_computed_at_22(tmp_path: Path, name: str) -> None:
    opset, nodes, constants = NEWER[name]
    path = write(tmp_path / "a.onnx", nodes, constants, opset)
    x = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype(np.float32)
    made = convert(onnx.load(path), NEWEST, "a")
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == NEWEST
    np.testing.assert_allclose(
        run(made.SerializeToString(), {"image": x}), run(path.read_bytes(), {"image": x}), atol=1e-6
    )


def test_what_has_no_newer_form_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    nodes = [
        N("Shape", ["image"], ["n"]), N("Cast", ["n"], ["f"], to=1), N("Div", ["f", "f"], ["ones"]),
        N("Resize", ["image", "ones"], ["y"]),
    ]  # fmt: skip
    with pytest.raises(BundleError, match=r"a\.onnx: Resize of opset 10 by scales.*export it again"):
        load_onnx(write(tmp_path / "a.onnx", nodes, {}, 10), SHAPE)


def test_forms_in_branches_are_converted(tmp_path: Path) -> None:
    branch = [
        helper.make_graph([N(op, ["image"], [f"{op}_y"], axis=1)], op, [],
                          [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, ["n", *SHAPE])])
        for op in ("Softmax", "LogSoftmax")
    ]  # fmt: skip
    nodes = [N("If", ["yes"], ["y"], then_branch=branch[0], else_branch=branch[1])]
    path = write(tmp_path / "a.onnx", nodes, {"yes": np.array(True)}, 11)
    x = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype(np.float32)
    found = run(load_onnx(path, SHAPE).SerializeToString(), {"x": x})
    np.testing.assert_allclose(found, run(path.read_bytes(), {"image": x}), atol=1e-5)
