"""Operators that draw random numbers or mix the images of a batch are named, in export and in load."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dualsmooth as ds
from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.runtime.graphs.admission import check_file
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.rows import fault

SHAPE = (2, 4, 4)
Nodes = Sequence[onnx.NodeProto]


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(",") if inputs else [], outputs.split(","), name=f"the_{op}", **attributes)


def model(*nodes: onnx.NodeProto, opset: int = 18, **constants: object) -> onnx.ModelProto:
    """`nodes` take x to y; y is then flattened into two logits."""
    weights = np.linspace(-1, 1, 64, dtype=np.float32).reshape(32, 2)
    tail = [helper.make_node("Flatten", ["y"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["logits"])]
    graph = helper.make_graph(
        [*nodes, *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weights, "w")]
        + [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


ZERO, ALL = np.array([0]), np.array([0, 1, 2, 3])
NAMED: dict[str, tuple[onnx.ModelProto, str]] = {
    "noise like": (model(node("RandomNormalLike", "x", "r"), node("Add", "x,r", "y")), "draws random"),
    "uniform like": (model(node("RandomUniformLike", "x", "r"), node("Add", "x,r", "y")), "draws random"),
    "noise of a shape": (
        model(node("RandomNormal", "", "r", shape=[1, 2, 4, 4]), node("Add", "x,r", "y")), "draws random"),
    "bernoulli": (model(node("Bernoulli", "x", "y")), "draws random"),
    "dropout": (model(node("Dropout", "x,p,t", "y"), p=np.float32(0.5), t=np.array(True)), "draws random"),
    "dropout by a constant node": (
        model(node("Constant", "", "t", value=numpy_helper.from_array(np.array(True))),
              node("Dropout", "x,p,t", "y"), p=np.float32(0.5)), "draws random"),
    "training batch norm": (
        model(node("BatchNormalization", "x,s,b,m,v", "y,m2,v2", training_mode=1),
              **{k: np.ones(2, np.float32) for k in "sbmv"}), "statistics of the batch"),
    "dynamic quantisation": (
        model(node("DynamicQuantizeLinear", "x", "q,s,z"), node("DequantizeLinear", "q,s,z", "y")),
        "dynamic quantisation"),
    "mean variance": (model(node("MeanVarianceNormalization", "x", "y")), "averages over the batch"),
    "global max": (model(node("ReduceMax", "x", "r"), node("Sub", "x,r", "y")), "batch axis"),
    "mean over axis 0": (model(node("ReduceMean", "x,a", "r"), node("Sub", "x,r", "y"), a=ZERO), "batch axis"),
    "sum over axis -4": (model(node("ReduceSum", "x,a", "r"), node("Sub", "x,r", "y"), a=ZERO - 4), "batch axis"),
    "norm of all": (model(node("ReduceL2", "x,a", "r"), node("Div", "x,r", "y"), a=ALL), "batch axis"),
    "mean by attribute": (
        model(node("ReduceMean", "x", "r", axes=[0]), node("Sub", "x,r", "y"), opset=17), "batch axis"),
    "softmax over the batch": (model(node("Softmax", "x", "y", axis=0)), "batch axis"),
    "softmax over -4": (model(node("LogSoftmax", "x", "y", axis=-4)), "batch axis"),
    "cumulative sum": (model(node("CumSum", "x,a", "y"), a=np.array(0)), "batch axis"),
    "layer norm from axis 0": (
        model(node("LayerNormalization", "x,s", "y", axis=0), s=np.ones((1, *SHAPE), np.float32)), "batch axis"),
    "softmax over a transposed batch": (
        model(node("Transpose", "x", "t", perm=[1, 0, 2, 3]), node("Softmax", "t", "u", axis=1),
              node("Transpose", "u", "y", perm=[1, 0, 2, 3])), "batch axis .axis 1."),
    "arg max over the batch": (
        model(node("ArgMax", "x", "i", axis=0), node("Cast", "i", "c", to=1), node("Sub", "x,c", "y")), "batch axis"),
    "lp norm": (model(node("LpNormalization", "x", "y", axis=0)), "batch axis"),
    "squeeze of everything": (model(node("Squeeze", "x", "y")), "drops the batch axis of a batch of one"),
    "flatten from axis 0": (model(node("Flatten", "x", "y", axis=0)), "all images of a batch into one row"),
    "sequence": (
        model(node("SplitToSequence", "x", "s", axis=0), node("ConcatFromSequence", "s", "y", axis=0)), "sequences"),
    "boxes": (
        model(node("NonMaxSuppression", "x,x", "b"), node("Cast", "b", "y", to=1)), "depends on the whole batch"),
    "unique": (model(node("Unique", "x", "y")), "depends on the whole batch"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_the_operator_and_its_node_are_named_in_export_and_in_load(case: str, tmp_path: Path) -> None:
    graph, said = NAMED[case]
    path = tmp_path / "theirs.onnx"
    onnx.save(graph, path)
    with pytest.raises(ds.BundleError, match=rf"^{path}: the operator \w+ \(node 'the_\w+'\) .*{said}"):
        load_onnx(path, SHAPE)
    with pytest.raises(ds.BundleError, match=rf"^{path}: the operator \w+ \(node 'the_\w+'\) .*{said}"):
        check_file(path, {}, SHAPE, 2)


FINE: dict[str, onnx.ModelProto] = {
    "reductions inside an image": model(
        node("ReduceMean", "x,a", "m"), node("Sub", "x,m", "y"), a=np.array([1, 2, 3])),
    "negative axes": model(node("ReduceMax", "x,a", "m"), node("Sub", "x,m", "y"), a=np.array([-1, -3])),
    "softmax of channels": model(node("Softmax", "x", "y", axis=1)),
    "no axes, and told to do nothing": model(
        node("ReduceSum", "x", "m", noop_with_empty_axes=1), node("Sub", "x,m", "y")),
    "arithmetic of shapes": model(
        node("Shape", "x", "s"), node("ReduceProd", "s", "n"), node("Cast", "n", "c", to=1),
        node("Sub", "x,c", "d"), node("Sub", "d,c", "y")),
    "a reduction of constants": model(node("ReduceMax", "k", "m"), node("Sub", "x,m", "y"), k=np.ones((4, 4), "f")),
    "squeeze of a named axis": model(
        node("Unsqueeze", "x,a", "u"), node("Squeeze", "u,a", "y"), a=np.array([2])),
    "dropout in evaluation": model(
        node("Dropout", "x,p,t", "y"), p=np.float32(0.5), t=np.array(False)),
    "images doubled and halved again": model(
        node("Neg", "x", "n"), node("Concat", "x,n", "c", axis=0), node("Split", "c", "a,b", axis=0, num_outputs=2),
        node("Max", "a,b", "y")),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
def test_what_treats_each_row_alone_is_not_named(case: str) -> None:
    graph = parse_model(FINE[case].SerializeToString(), "x").graph
    assert fault(graph, "x", SHAPE) == ""
