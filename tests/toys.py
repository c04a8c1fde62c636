"""Networks whose smoothed behaviour is known in closed form, as real ONNX bundles.

Inputs are [1,1,2] images (t, u). The classifier votes 1 where t >= cut and the estimator votes for the interval of u
that its cuts bound, so that under noise P(vote = 1) = Phi((t - cut) / sigma) and F_j = Phi((cuts[j] - u) / sigma_e).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.runtime.bundle import BaseModel, manifest_text
from dualsmooth.runtime.files import sha256_of

SHAPE = (1, 1, 2)


def linear_onnx(weights: np.ndarray, bias: np.ndarray) -> bytes:
    """ONNX bytes of logits = flatten(x) @ weights + bias, for x [N,1,1,2]."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def steps_onnx(axis: int, cuts: Sequence[float]) -> bytes:
    """A network that votes j where cuts[j-1] <= x[axis] < cuts[j]: lines of rising slope that cross at the cuts."""
    weights = np.zeros((2, len(cuts) + 1))
    weights[axis] = np.arange(len(cuts) + 1)
    return linear_onnx(weights, -np.concatenate([[0.0], np.cumsum(cuts)]))


def write_bundle(
    path: Path,
    *,
    sigmas: tuple[float, ...],
    sigma_e: float,
    estimator_cuts: Sequence[float],
    classifier_cuts: Sequence[float | Sequence[float]],
) -> Path:
    """A bundle with len(sigmas) - 1 estimator cuts along u and, for each level, the classifier's cut(s) along t."""
    path.mkdir(parents=True)
    contents = {"estimator.onnx": steps_onnx(1, estimator_cuts)}
    models = []
    for level, cut in enumerate(classifier_cuts):
        name = f"classifier_{level}.onnx"
        contents[name] = steps_onnx(0, [cut] if isinstance(cut, int | float) else cut)
        models.append(BaseModel((name,)))
    for name, data in contents.items():
        (path / name).write_bytes(data)
    first = classifier_cuts[0]
    count = 2 if isinstance(first, int | float) else len(first) + 1
    text = manifest_text(
        sigmas=sigmas,
        sigma_e=sigma_e,
        classes=tuple(f"class {c}" for c in range(count)),
        input_shape=SHAPE,
        estimator=BaseModel(("estimator.onnx",)),
        classifiers=tuple(models),
        precision="fp32",
        files={name: sha256_of(path / name) for name in contents},
        provenance={},
    )
    (path / "manifest.json").write_text(text)
    return path


def image(t: float, u: float) -> np.ndarray:
    """The input (t, u), float32 [1,1,2]."""
    return np.array([[[t, u]]], np.float32)
