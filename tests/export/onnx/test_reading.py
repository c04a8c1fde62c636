"""Files as other tools write them: plain afterwards, and the same; batches that are fixed inside made free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.precision import to_half, to_int8
from dualsmooth.runtime.errors import DualSmoothError

N = helper.make_node
SHAPE = (3, 4, 4)
W = np.random.default_rng(0).standard_normal((48, 2)).astype(np.float32) / 7
KERNEL = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32) / 5
HEAD = np.random.default_rng(2).standard_normal((4, 2)).astype(np.float32)
LINEAR = [N("Flatten", ["image"], ["f"]), N("MatMul", ["f", "w"], ["scores"])]


def build(
    nodes: list[onnx.NodeProto], batch: int | str = "N", opset: int = 17, kind: int = TensorProto.FLOAT, **more: Any
) -> onnx.ModelProto:
    """A file [batch,3,4,4] to [batch,2]; arrays in `more` are constants beside `w`."""
    values = {"w": W, **more}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", kind, [batch, *SHAPE])],
        [helper.make_tensor_value_info("scores", kind, [batch, 2])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def unsorted() -> onnx.ModelProto:
    return build([*LINEAR[::-1]])


def constants_as_inputs() -> onnx.ModelProto:
    model = build(LINEAR, opset=8)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape))
    return model


def functions() -> onnx.ModelProto:
    model = build([N("Twice", ["image"], ["t"], domain="mine"), N("Flatten", ["t"], ["f"]), LINEAR[1]])
    body = [N("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def sparse() -> onnx.ModelProto:
    model = build([*LINEAR[:1], N("MatMul", ["f", "s"], ["scores"])])
    values = numpy_helper.from_array(np.array([1.0, -2.0], np.float32), "s")
    places = numpy_helper.from_array(np.array([[3, 0], [40, 1]], np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [48, 2]))
    return model


def numbers() -> onnx.ModelProto:
    """Constants of all kinds, as PyTorch and Keras write them."""
    constants = [N("Constant", [], ["two"], value_float=2.0), N("Constant", [], ["sizes"], value_ints=[-1, 48])]
    return build([*constants, N("Mul", ["image", "two"], ["t"]), N("Reshape", ["t", "sizes"], ["f"]), LINEAR[1]])


def training() -> onnx.ModelProto:
    model = build(LINEAR)
    model.training_info.add()
    model.metadata_props.add(key="who", value="me")
    model.graph.quantization_annotation.add(tensor_name="f")
    return model


def half_ends() -> onnx.ModelProto:
    return build(LINEAR, kind=TensorProto.FLOAT16, w=W.astype(np.float16))


def double_ends() -> onnx.ModelProto:
    return build(LINEAR, kind=TensorProto.DOUBLE, w=W.astype(np.float64))


def no_shape() -> onnx.ModelProto:
    model = build(LINEAR)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def one_name_for_all() -> onnx.ModelProto:
    model = build(LINEAR)
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = "unk__1"
    return model


def spatial_logits() -> onnx.ModelProto:
    return build([N("Conv", ["image", "k"], ["c"]), N("GlobalMaxPool", ["c"], ["scores"])], k=KERNEL[:2])


def our_names_inside() -> onnx.ModelProto:
    return build([N("Add", ["image", "x_mean"], ["x_inner"]), N("Flatten", ["x_inner"], ["x"]),
                  N("MatMul", ["x", "w"], ["scores"])], x_mean=np.ones((1, 3, 1, 1), np.float32))  # fmt: skip


def shape_chain() -> onnx.ModelProto:
    """PyTorch's old view(x.size(0), -1)."""
    return build([
        N("Shape", ["image"], ["s"]), N("Constant", [], ["z"], value=numpy_helper.from_array(np.array(0))),
        N("Gather", ["s", "z"], ["n"], axis=0), N("Unsqueeze", ["n", "a"], ["n1"]),
        N("Concat", ["n1", "m"], ["v"], axis=0),
        N("Reshape", ["image", "v"], ["f"]), LINEAR[1],
    ], a=np.array([0]), m=np.array([-1]))  # fmt: skip


def probabilities() -> onnx.ModelProto:
    return build([*LINEAR[:1], N("MatMul", ["f", "w"], ["y"]), N("Softmax", ["y"], ["scores"])], opset=11)


PLAIN = [
    unsorted, constants_as_inputs, functions, sparse, numbers, training, half_ends, double_ends, no_shape,
    one_name_for_all, spatial_logits, our_names_inside, shape_chain, probabilities,
]  # fmt: skip


def bias_shape(b: int | str) -> onnx.ModelProto:
    """PaddlePaddle reshapes biases to [1,C,1,1]."""
    return build([
        N("Conv", ["image", "k"], ["c"]), N("Reshape", ["bias", "four"], ["b4"]), N("Add", ["c", "b4"], ["d"]),
        N("GlobalAveragePool", ["d"], ["p"]), N("Flatten", ["p"], ["q"]), N("MatMul", ["q", "h"], ["scores"]),
    ], b, k=KERNEL, bias=np.arange(4, dtype=np.float32), four=np.array([1, 4, 1, 1]), h=HEAD)  # fmt: skip


def class_token(b: int | str) -> onnx.ModelProto:
    """A transformer's class token, folded to one row."""
    return build([
        N("Reshape", ["image", "s"], ["r"]), N("Concat", ["token", "r"], ["t"], axis=1), N("ReduceMean", ["t"], ["m"],
        axes=[1], keepdims=0), N("MatMul", ["m", "v"], ["scores"]),
    ], b, s=np.array([1, 3, 16]), token=np.ones((1, 1, 16), np.float32), v=W[:16])  # fmt: skip


def heads(b: int | str) -> onnx.ModelProto:
    """Attention's heads multiplied into the batch."""
    return build([
        N("Reshape", ["image", "s"], ["r"]), N("Softmax", ["r"], ["a"], axis=-1), N("Reshape", ["a", "t"], ["f"]),
        LINEAR[1],
    ], b, s=np.array([3, 4, 4]), t=np.array([1, 48]))  # fmt: skip


def resized(b: int | str) -> onnx.ModelProto:
    return build([
        N("Resize", ["image", "", "", "z"], ["u"], mode="linear"), N("GlobalMaxPool", ["u"], ["p"]),
        N("Flatten", ["p"], ["q"]), N("MatMul", ["q", "v"], ["scores"]),
    ], b, z=np.array([1, 3, 7, 9]), v=HEAD[:3])  # fmt: skip


def recurrent(b: int | str) -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    return build([
        N("Reshape", ["image", "s"], ["r"]), N("Transpose", ["r"], ["t"], perm=[1, 0, 2]),
        N("GRU", ["t", "gw", "gr", "", "", "h0"], ["", "h"], hidden_size=2), N("Squeeze", ["h", "zero"], ["scores"]),
    ], b, s=np.array([1, 3, 16]), gw=rng.random((1, 6, 16)).astype(np.float32) - 0.5, zero=np.array([0]),
        gr=rng.random((1, 6, 2)).astype(np.float32), h0=np.full((1, 1, 2), 0.5, np.float32))  # fmt: skip


def flat_one(b: int | str) -> onnx.ModelProto:
    return build([N("Reshape", ["image", "s"], ["f"]), LINEAR[1]], b, s=np.array([1, -1]))


FIXED = [bias_shape, class_token, heads, resized, recurrent, flat_one]


def run(source: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(1).random((n, *SHAPE), np.float32)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("make", PLAIN)
def test_plain_forms_compute_the_same(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    path, x = save(make(), tmp_path), pixels(5)
    kind = helper.tensor_dtype_to_np_dtype(make().graph.input[0].type.tensor_type.elem_type)
    model = load_onnx(path, SHAPE)
    onnx.checker.check_model(model, full_check=True)
    within = 1e-3 if make is half_ends else 1e-5  # between casts, the engine rounds fewer halves
    np.testing.assert_allclose(run(model, x), run(path, x.astype(kind)).reshape(5, 2).astype(np.float32), atol=within)
    shifted = load_onnx(path, SHAPE, mean=(0.4,), std=(0.5,))
    np.testing.assert_allclose(run(shifted, x * np.float32(0.5) + np.float32(0.4)), run(model, x), atol=2e-2)
    again = load_onnx(save(model, tmp_path), SHAPE)
    np.testing.assert_array_equal(run(again, x), run(model, x))


@pytest.mark.parametrize("batch", [1, "N", "unk__7"])
@pytest.mark.parametrize("make", FIXED)
def test_a_batch_of_one_becomes_free(tmp_path: Path, make: Any, batch: int | str) -> None:
    path, x = save(make(batch), tmp_path), pixels(5)
    model = load_onnx(path, SHAPE)
    onnx.checker.check_model(model, full_check=True)
    one_by_one = np.concatenate([run(path, row[None]) for row in x])
    np.testing.assert_allclose(run(model, x), one_by_one, atol=1e-5)
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("make", [constants_as_inputs, numbers, shape_chain, lambda: bias_shape(1)])
def test_every_precision_of_an_exported_file_passes_the_checker(tmp_path: Path, make: Any) -> None:
    model = load_onnx(save(make(), tmp_path), SHAPE)
    again = load_onnx(save(model, tmp_path), SHAPE)
    for made in (to_half(again, "fp16"), to_half(again, "bf16"), to_int8(again, [(pixels(8), 0.25)], ends=True)):
        onnx.checker.check_model(made, full_check=True)


def test_external_data_is_found_beside_the_file(tmp_path: Path) -> None:
    onnx.save(build(LINEAR), tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    x = pixels(3)
    np.testing.assert_allclose(run(load_onnx(tmp_path / "net.onnx", SHAPE), x), x.reshape(3, -1) @ W, atol=1e-5)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(DualSmoothError, match=r"net\.onnx"):
        load_onnx(tmp_path / "net.onnx", SHAPE)


def ring() -> onnx.ModelProto:
    return build([N("Add", ["image", "b"], ["a"]), N("Abs", ["a"], ["b"]), N("Flatten", ["b"], ["f"]), LINEAR[1]])


def noise() -> onnx.ModelProto:
    return build([N("RandomNormalLike", ["image"], ["r"]), N("Add", ["image", "r"], ["s"]), N("Flatten", ["s"], ["f"]),
                  LINEAR[1]])  # fmt: skip


def two_ends() -> onnx.ModelProto:
    model = build(LINEAR)
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["N", 48]))
    return model


REFUSED = {ring: "form a ring", noise: "draws random numbers", two_ends: "onnx.utils.extract_model"}


@pytest.mark.parametrize("make", REFUSED)
def test_refused_with_the_name_of_the_file(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(DualSmoothError, match=REFUSED[make]) as caught:
        load_onnx(save(make(), tmp_path), SHAPE)
    assert "net.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
