"""Networks whose smoothed behaviour is known in closed form, as real ONNX bundles.

Inputs are [1,1,2] images (t, u). The classifier votes 1 where t >= cut and the estimator votes for the interval of u
that its cuts bound, so that under noise P(vote = 1) = Phi((t - cut) / sigma) and F_j = Phi((cuts[j] - u) / sigma_e).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy import special

from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.reading import BaseModel, manifest_text
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
    sigma_e: float | None = None,
    estimator_cuts: Sequence[float] | None = None,
    classifier_cuts: Sequence[float | Sequence[float]],
    preprocessing: Preprocessing | None = None,
    sure: tuple[float, ...] = (),
) -> Path:
    """A bundle with len(sigmas) - 1 estimator cuts along u and, for each level, the classifier's cut(s) along t.
    Without estimator cuts it has no router."""
    path.mkdir(parents=True)
    contents = {} if estimator_cuts is None else {"estimator.onnx": steps_onnx(1, estimator_cuts)}
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
        estimator=None if estimator_cuts is None else BaseModel(("estimator.onnx",)),
        classifiers=tuple(models),
        precision="fp32",
        files={name: sha256_of(path / name) for name in contents},
        provenance={},
        preprocessing=preprocessing,
        sure=sure,
    )
    (path / "manifest.json").write_text(text)
    return path


def two_levels(path: Path, *, estimator_cut: float = 0.5, classifier_cuts: Sequence[float] = (0.3, 0.4)) -> Path:
    """A bundle with two levels, 0.25 and 0.5, an expert each, and two classes."""
    return write_bundle(
        path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[estimator_cut], classifier_cuts=classifier_cuts
    )


def image(t: float, u: float) -> np.ndarray:
    """The input (t, u), float32 [1,1,2]."""
    return np.array([[[t, u]]], np.float32)


def route_intervals(cuts: Sequence[float], sigma_e: float, kind: str) -> list[tuple[float, float, int]]:
    """Where along u the smoothed estimator routes where: (from, to, level), in order, exact to 1e-12."""
    ends = [-math.inf, *cuts, math.inf]
    if kind == "median":
        return [(a, b, level) for level, (a, b) in enumerate(pairwise(ends))]

    def mode(u: float) -> int:
        return int(np.argmax(np.diff(special.ndtr((np.array(ends) - u) / sigma_e))))

    grid = np.linspace(cuts[0] - 9 * sigma_e, cuts[-1] + 9 * sigma_e, 4001)
    found = [(-math.inf, mode(float(grid[0])))]
    for a, b in pairwise(grid.tolist()):
        level = mode(b)
        if level != found[-1][1]:
            low, high = a, b
            while high - low > 1e-12:
                middle = (low + high) / 2
                low, high = (low, middle) if mode(middle) == level else (middle, high)
            found.append((high, level))
    starts = [start for start, _ in found] + [math.inf]
    return [(a, b, level) for (a, b), (_, level) in zip(pairwise(starts), found, strict=True)]


def true_radius(
    t: float,
    u: float,
    label: int,
    *,
    estimator_cuts: Sequence[float],
    classifier_cuts: Sequence[float],
    sigma_e: float,
    kind: str,
) -> float:
    """Distance from (t, u) to the nearest input to which the dual classifier gives another label; 0 at such inputs.

    Level s says 1 where t >= classifier_cuts[s], whatever its sigma: other labels fill half-strips.
    """
    distances = []
    for start, end, level in route_intervals(estimator_cuts, sigma_e, kind):
        cut = classifier_cuts[level]
        along_t = max(0.0, t - cut if label == 1 else cut - t)
        distances.append(math.hypot(along_t, max(0.0, start - u, u - end)))
    return min(distances)
