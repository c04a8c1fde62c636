"""What the manifest calls a graph, seen from its element types."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.precision import overall, precision_of

N = helper.make_node
WEIGHTS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)


def graph(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> str:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return precision_of(parse_model(helper.make_model(made).SerializeToString(), "x").graph)


def between_casts(kind: int, dtype: type) -> str:
    nodes = [N("Cast", ["x"], ["h"], to=kind), N("MatMul", ["h", "w"], ["y"]), N("Cast", ["y"], ["logits"], to=1)]
    return graph(nodes, w=WEIGHTS.astype(dtype))


SCALE, ZERO = np.float32(0.01), np.int8(0)


def test_floats() -> None:
    assert graph([N("MatMul", ["x", "w"], ["logits"])], w=WEIGHTS) == "fp32"
    assert between_casts(TensorProto.FLOAT16, np.float16) == "fp16"
    assert between_casts(TensorProto.DOUBLE, np.float64) == "fp64"
    assert graph([N("Relu", ["x"], ["logits"])]) == "fp32"


def test_halves_that_are_only_stored_compute_in_float() -> None:
    nodes = [N("Cast", ["w"], ["v"], to=1), N("MatMul", ["x", "v"], ["logits"])]
    assert graph(nodes, w=WEIGHTS.astype(np.float16)) == "fp32"


def test_mixed_halves_are_halves() -> None:
    nodes = [
        N("Softmax", ["x"], ["s"]), N("MatMul", ["s", "v"], ["t"]), N("Cast", ["t"], ["h"], to=TensorProto.FLOAT16),
        N("MatMul", ["h", "w"], ["y"]), N("Cast", ["y"], ["logits"], to=1),
    ]  # fmt: skip
    assert graph(nodes, v=np.eye(4, dtype=np.float32), w=WEIGHTS.astype(np.float16)) == "fp16"


@pytest.mark.parametrize("activations", [True, False])
def test_qdq_is_int8_and_weights_alone_are_w8(activations: bool) -> None:
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["d"])]
    nodes = nodes if activations else [N("Identity", ["x"], ["d"])]
    nodes += [N("DequantizeLinear", ["w", "s", "z"], ["v"]), N("MatMul", ["d", "v"], ["logits"])]
    found = graph(nodes, w=(WEIGHTS * 100).astype(np.int8), s=np.array(SCALE), z=np.array(ZERO))
    assert found == ("int8" if activations else "w8")


def test_integer_operators_are_int8() -> None:
    assert (
        graph([N("MatMulInteger", ["x", "w"], ["i"]), N("Cast", ["i"], ["logits"], to=1)], w=np.eye(4, 2, dtype="b"))
        == "int8"
    )


def test_a_bundle_is_called_by_its_narrowest() -> None:
    assert overall(["fp32", "int8", "fp16"]) == "int8"
    assert overall(["fp32", "fp16"]) == "fp16"
    assert overall(["fp32", "fp32"]) == "fp32"
