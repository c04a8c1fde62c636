"""Shapes and multiply-adds, against onnx's own inference and against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.shapes import TooLarge, infer

N = helper.make_node


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: list[int], opset: int = 20
) -> onnx.ModelProto:
    """A model of `nodes` on x [shape] whose outputs are those of the last node."""
    built = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in nodes[-1].output],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def both(model: onnx.ModelProto, shape: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    ours = infer(parse_model(model.SerializeToString(), "m").graph, {"x": shape})
    inferred = shape_inference.infer_shapes(model, data_prop=True, strict_mode=True).graph
    theirs = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*inferred.value_info, *inferred.output)
    }
    return ours.shapes, theirs


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], list[int]]] = {
    "conv": ([N("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1] * 4)], {"w": floats(5, 3, 3, 3)}, [1, 3, 9, 8]),
    "conv dilated": (
        [N("Conv", ["x", "w"], ["y"], dilations=[2, 3], group=3)], {"w": floats(6, 1, 3, 3)}, [1, 3, 9, 9]),
    "conv same": (
        [N("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], {"w": floats(5, 3, 3, 3)}, [1, 3, 9, 8]),
    "conv transpose": (
        [N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 1])], {"w": floats(3, 4, 3, 3)},
        [1, 3, 5, 5]),
    "pool ceil": ([N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, [1, 3, 8, 8]),
    "pool floor": ([N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2])], {}, [1, 3, 8, 8]),
    "global pool": ([N("GlobalAveragePool", ["x"], ["y"])], {}, [1, 3, 8, 8]),
    "gemm": ([N("Gemm", ["x", "w"], ["y"], transB=1)], {"w": floats(7, 4)}, [2, 4]),
    "matmul": ([N("MatMul", ["x", "w"], ["y"])], {"w": floats(4, 6)}, [2, 5, 3, 4]),
    "matmul vector": ([N("MatMul", ["x", "w"], ["y"])], {"w": floats(4)}, [3, 4]),
    "einsum": ([N("Einsum", ["x", "w"], ["y"], equation="bij,jk->bik")], {"w": floats(4, 6)}, [2, 3, 4]),
    "flatten": ([N("Flatten", ["x"], ["y"])], {}, [2, 3, 4]),
    "reshape": ([N("Reshape", ["x", "s"], ["y"])], {"s": ints(0, -1)}, [2, 3, 4]),
    "shape arithmetic": (
        [N("Shape", ["x"], ["s"]), N("Gather", ["s", "i"], ["n"]), N("Mul", ["n", "two"], ["m"]),
         N("Concat", ["m", "rest"], ["t"], axis=0), N("Reshape", ["x", "t"], ["y"])],
        {"i": ints(0), "two": ints(2), "rest": ints(-1)}, [2, 3, 4]),
    "transpose": ([N("Transpose", ["x"], ["y"], perm=[0, 2, 1])], {}, [2, 3, 4]),
    "concat": ([N("Concat", ["x", "x"], ["y"], axis=-1)], {}, [2, 3, 4]),
    "squeeze": (
        [N("Unsqueeze", ["x", "a"], ["u"]), N("Squeeze", ["u", "b"], ["y"])], {"a": ints(0, -1), "b": ints(0)}, [2, 3]),
    "slice": (
        [N("Slice", ["x", "a", "b", "c", "d"], ["y"])], {"a": ints(-1, 1), "b": ints(-(2**63), 2**62), "c": ints(1, 2),
         "d": ints(-2, 1)}, [2, 5, 4]),
    "split": ([N("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)], {}, [2, 5, 4]),
    "reduce": ([N("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"a": ints(2, 3)}, [1, 3, 8, 8]),
    "argmax": ([N("ArgMax", ["x"], ["y"], axis=1)], {}, [2, 3, 4]),
    "pad": ([N("Pad", ["x", "p"], ["y"])], {"p": ints(0, 0, 1, 2, 0, 0, 3, 4)}, [1, 3, 8, 8]),
    "resize": ([N("Resize", ["x", "", "s"], ["y"])], {"s": np.array([1, 1, 2, 1.5], np.float32)}, [1, 3, 8, 7]),
    "expand": ([N("Expand", ["x", "s"], ["y"])], {"s": ints(4, 1, 3)}, [2, 1, 3][1:]),
    "tile": ([N("Tile", ["x", "s"], ["y"])], {"s": ints(2, 3)}, [2, 4]),
    "where": ([N("Greater", ["x", "z"], ["g"]), N("Where", ["g", "x", "z"], ["y"])], {"z": floats(4, 1)}, [2, 4, 3]),
    "depth to space": ([N("DepthToSpace", ["x"], ["y"], blocksize=2)], {}, [1, 8, 3, 3]),
    "filled": ([N("ConstantOfShape", ["s"], ["c"]), N("Add", ["x", "c"], ["y"])], {"s": ints(2, 3)}, [2, 3]),
    "elementwise": ([N("Sigmoid", ["x"], ["s"]), N("Mul", ["x", "s"], ["y"])], {}, [2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_shapes_are_those_that_onnx_infers(case: str) -> None:
    nodes, constants, shape = CASES[case]
    ours, theirs = both(graph_of(nodes, constants, shape), tuple(shape))
    assert theirs
    for name, dims in theirs.items():
        assert ours[name] == dims, name


def cost(nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: list[int]) -> int:
    model = parse_model(graph_of(nodes, constants, shape).SerializeToString(), "m")
    found = infer(model.graph, {"x": tuple(shape)})
    assert found.unknown == []
    return found.multiply_adds()


def test_multiply_adds_by_hand() -> None:
    assert cost(*CASES["conv"]) == (5 * 5 * 4) * (3 * 3 * 3)
    assert cost(*CASES["conv dilated"]) == (6 * 5 * 3) * 9
    assert cost(*CASES["conv transpose"]) == (3 * 5 * 5) * (4 * 9)
    assert cost(*CASES["gemm"]) == 2 * 4 * 7
    assert cost(*CASES["matmul"]) == 2 * 5 * 3 * 4 * 6
    assert cost(*CASES["einsum"]) == 2 * 3 * 4 * 6
    assert cost(*CASES["resize"]) == 0


def test_the_shipped_network_costs_what_its_layers_cost() -> None:
    """conv 5x5/2 32, 3x3/2 64, 3x3 64, 3x3/2 128, 3x3 128, linear 10, on 1x28x28."""
    model = parse_model((SHIPPED_BUNDLE / "classifier_1.onnx").read_bytes(), "m")
    layers = [(14, 32, 25), (7, 64, 32 * 9), (7, 64, 64 * 9), (4, 128, 64 * 9), (4, 128, 128 * 9), (1, 10, 128)]
    by_hand = sum(size * size * features * each for size, features, each in layers)
    assert infer(model.graph, {"x": (1, 1, 28, 28)}).multiply_adds() == by_hand


def test_what_cannot_be_told_is_named_and_not_guessed() -> None:
    nodes = [N("NonZero", ["x"], ["i"]), N("Cast", ["i"], ["f"], to=1), N("MatMul", ["f", "w"], ["y"])]
    built = parse_model(graph_of(nodes, {"w": floats(3, 3)}, [2, 2]).SerializeToString(), "m")
    found = infer(built.graph, {"x": (2, 2)})
    assert found.shapes["y"] is None
    assert found.unknown == ["MatMul"]


def test_the_limit() -> None:
    built = parse_model(graph_of(*CASES["tile"]).SerializeToString(), "m")
    with pytest.raises(TooLarge):
        infer(built.graph, {"x": (2, 4)}, limit=47)
    assert infer(built.graph, {"x": (2, 4)}, limit=48).shapes["y"] == (4, 12)


def test_numbers_that_grow_without_end_are_dropped() -> None:
    """Squaring a constant sixty times would fill the memory with one integer."""
    nodes = [N("Mul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(60)]
    built = parse_model(graph_of(nodes, {"c0": ints(2**40)}, [1]).SerializeToString(), "m")
    assert "c60" not in infer(built.graph, {"x": (1,)}).values
