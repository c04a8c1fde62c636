"""Existing ONNX files: brought to the contract where that is possible, refused with one line where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.onnx.files import load_onnx, shape_of
from dualsmooth.runtime.errors import BundleError, DualSmoothError, InputError

SHAPE = (3, 4, 4)
N = helper.make_node


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, list[Any]] | None = None,
    output: tuple[str, list[Any]] = ("scores", ["n", 2]),
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
) -> Path:
    values = {"w": np.random.default_rng(0).standard_normal((48, 2)).astype(np.float32), **(constants or {})}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(k, kind, v) for k, v in (inputs or {"image": ["n", 3, 4, 4]}).items()],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


LINEAR = [N("Flatten", ["image"], ["f"]), N("MatMul", ["f", "w"], ["scores"])]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"x": x})[0])


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(1).random((n, *SHAPE), np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    w = np.random.default_rng(0).standard_normal((48, 2)).astype(np.float32)
    return x.reshape(len(x), -1) @ w


def test_names_and_normalisation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", LINEAR)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    x = pixels(5)
    scaled = (x - np.array(mean).reshape(1, 3, 1, 1)) / np.array(std).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(run(load_onnx(path, SHAPE), x), expected(x), atol=1e-5)
    wrapped = load_onnx(path, SHAPE, mean=mean, std=std)
    np.testing.assert_allclose(run(wrapped, x), expected(scaled.astype(np.float32)), atol=1e-4)
    onnx.checker.check_model(wrapped, full_check=True)
    assert shape_of(path) == SHAPE


def test_inner_tensors_that_have_our_names_move_away(tmp_path: Path) -> None:
    nodes = [N("Flatten", ["image"], ["logits"]), N("MatMul", ["logits", "w"], ["x"]), N("Identity", ["x"], ["scores"])]
    model = load_onnx(write(tmp_path / "a.onnx", nodes), SHAPE)
    np.testing.assert_allclose(run(model, pixels(3)), expected(pixels(3)), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("reshape", ["initializer", "constant", "allowzero"])
def test_a_fixed_batch_becomes_dynamic(tmp_path: Path, batch: int, reshape: str) -> None:
    shape = np.array([batch, 48], np.int64)
    more = {"allowzero": 1} if reshape == "allowzero" else {}
    nodes = [N("Reshape", ["image", "s"], ["f"], **more), N("MatMul", ["f", "w"], ["scores"])]
    constants = {"s": shape} if reshape != "constant" else None
    if reshape == "constant":
        nodes.insert(0, N("Constant", [], ["s"], value=numpy_helper.from_array(shape)))
    path = write(
        tmp_path / "a.onnx",
        nodes,
        inputs={"image": [batch, 3, 4, 4]},
        output=("scores", [batch, 2]),
        constants=constants,
    )
    model = load_onnx(path, SHAPE)
    for n in (1, 3, 7):
        np.testing.assert_allclose(run(model, pixels(n)), expected(pixels(n)), atol=1e-5)


def test_a_batch_that_is_fixed_inside_is_refused(tmp_path: Path) -> None:
    shape = np.array([2, 24, 2], np.int64)  # the batch is lost in the middle
    nodes = [
        N("Reshape", ["image", "s"], ["r"]), N("Reshape", ["r", "t"], ["f"]), N("Add", ["f", "rows"], ["g"]),
        N("MatMul", ["g", "w"], ["scores"]),
    ]  # fmt: skip
    constants = {"s": shape, "t": np.array([2, 48], np.int64), "rows": np.arange(2, dtype=np.float32).reshape(2, 1)}
    path = write(
        tmp_path / "a.onnx", nodes, inputs={"image": [2, 3, 4, 4]}, output=("scores", [2, 2]), constants=constants
    )
    with pytest.raises(BundleError, match="fixes its batch size to 2"):
        load_onnx(path, SHAPE)


def test_old_opsets_are_converted(tmp_path: Path) -> None:
    nodes = [N("Pad", ["image", "p"], ["q"]), N("ReduceMean", ["q"], ["m"], axes=[2, 3], keepdims=0), *[]]
    nodes += [N("MatMul", ["m", "v"], ["scores"])]
    constants = {"p": np.zeros(8, np.int64), "v": np.ones((3, 2), np.float32)}
    model = load_onnx(write(tmp_path / "a.onnx", nodes, constants=constants, opset=11), SHAPE)
    assert model.opset_import[0].version == 13  # the oldest that the runtime admits: the least to rewrite
    np.testing.assert_allclose(run(model, pixels(3))[:, 0], pixels(3).mean((2, 3)).sum(1), atol=1e-5)


def two_outputs(path: Path) -> Path:
    write(path, LINEAR)
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 48]))
    onnx.save(model, path)
    return path


def function(path: Path) -> Path:
    write(path, [N("F", ["image"], ["g"], domain="mine"), N("Flatten", ["g"], ["f"]), LINEAR[1]])
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "F", ["a"], ["b"], [N("Identity", ["a"], ["b"])], opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, path)
    return path


def custom(path: Path) -> Path:
    write(path, [N("Gelu", ["image"], ["g"], domain="com.microsoft"), N("Flatten", ["g"], ["f"]), LINEAR[1]])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    return path


def garbage(path: Path) -> Path:
    path.write_bytes(b"garbage")
    return path


HALF = [N("Cast", ["image"], ["c"], to=1), N("Flatten", ["c"], ["f"]), LINEAR[1]]
REFUSED: dict[str, tuple[Any, str]] = {
    "garbage": (garbage, "not an ONNX file"),
    "missing": (lambda p: p, "is not a file"),
    "two outputs": (two_outputs, "one output"),
    "custom operators": (custom, "com.microsoft"),
    "two images": (
        lambda p: write(p, [N("Add", ["image", "b"], ["c"]), N("Flatten", ["c"], ["f"]), LINEAR[1]],
                        inputs={"image": ["n", 3, 4, 4], "b": ["n", 3, 4, 4]}), "one image input"),
    "another scalar": (
        lambda p: write(p, [N("Add", ["image", "t"], ["c"]), N("Flatten", ["c"], ["f"]), LINEAR[1]],
                        inputs={"image": ["n", 3, 4, 4], "t": []}), "scalar named sigma"),
    "channels last": (lambda p: write(p, LINEAR, inputs={"image": ["n", 4, 4, 3]}), "channels last"),
    "another size": (lambda p: write(p, LINEAR, inputs={"image": ["n", 3, 6, 4]}), "expected"),
    "bytes in": (lambda p: write(p, HALF, kind=TensorProto.UINT8), "noisy pixels cannot be bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_line(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(DualSmoothError, match=message) as caught:
        load_onnx(make(tmp_path / "a.onnx"), SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mean", "std"), [((0.1, 0.2), (1,)), ((0.0,), (0.0,)), ((float("nan"),), (1,))])
def test_bad_statistics_are_refused(tmp_path: Path, mean: Any, std: Any) -> None:
    with pytest.raises(InputError, match="expected 1 or 3 finite numbers"):
        load_onnx(write(tmp_path / "a.onnx", LINEAR), SHAPE, mean=mean, std=std)
