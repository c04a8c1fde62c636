"""Channels-last networks: refused with the way out, and transposed where that is asked for."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import dualsmooth as ds
from dualsmooth.export.onnx.files import load_onnx, shape_of
from dualsmooth.export.onnx.layout import image_shape


def save(path: Path, sizes: tuple[int, int, int]) -> Path:
    count = int(np.prod(sizes))
    weights = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *sizes])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


SHAPES = [
    ((32, 32, 3), "nhwc", (3, 32, 32)), ((28, 28, 1), "nhwc", (1, 28, 28)), ((8, 12, 4), "nhwc", (4, 8, 12)),
    ((3, 32, 32), "nhwc", (3, 32, 32)), ((1, 28, 28), "nhwc", (1, 28, 28)), ((64, 64, 13), "nhwc", (13, 64, 64)),
    ((3, 32, 3), "nchw", (3, 32, 3)), ((3, 32, 3), "nhwc", (3, 3, 32)), ((3, 32, 32), "nchw", (3, 32, 32)),
    ((16, 16, 8), "nchw", (16, 16, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("sizes", "layout", "expected"), SHAPES)
def test_the_shape_of_images(tmp_path: Path, sizes: tuple, layout: str, expected: tuple) -> None:
    assert shape_of(save(tmp_path / "a.onnx", sizes), layout) == expected


@pytest.mark.parametrize("sizes", [(32, 32, 3), (28, 28, 1), (8, 12, 4), (224, 224, 3)])
def test_channels_last_is_refused_with_the_way_out(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    path = save(tmp_path / "a.onnx", sizes)
    with pytest.raises(ds.InputError, match=r"a\.onnx takes .*channels last; pass --layout nhwc"):
        shape_of(path)
    with pytest.raises(ds.BundleError, match=r"channels last: pass --layout nhwc"):
        load_onnx(path, (sizes[2], *sizes[:2]))


def test_an_unknown_layout() -> None:
    with pytest.raises(ds.InputError, match="layout 'hwc' is unknown; expected nchw or nhwc"):
        image_shape((32, 32, 3), "hwc", Path("a.onnx"))


@pytest.mark.parametrize("sizes", [(8, 8, 3), (6, 4, 3), (3, 8, 3), (3, 8, 8)])
def test_the_network_gets_its_images_as_it_wants_them(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    """One that only fits channels first (the last case) is left as it is."""
    path = save(tmp_path / "a.onnx", sizes)
    shape = shape_of(path, "nhwc")
    model = load_onnx(path, shape, layout="nhwc", mean=[0.5, 0.25, 0.125][: shape[0]], std=[2.0])
    x = np.random.default_rng(1).random((5, *shape), np.float32)
    normal = (x - np.float32([0.5, 0.25, 0.125]).reshape(1, 3, 1, 1)) / np.float32(2)
    theirs = normal if sizes == (3, 8, 8) else np.ascontiguousarray(normal.transpose(0, 2, 3, 1))
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"image": theirs})[0]
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, atol=1e-5)
