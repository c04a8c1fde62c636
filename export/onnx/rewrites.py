"""Every rewrite of a user's ONNX file is compared with the untouched file, on the same images, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from dualsmooth.export.onnx.graph import INPUT, SIGMA
from dualsmooth.export.onnx.sessions import batches, opened, run
from dualsmooth.runtime.errors import BundleError, one_line

Logits = npt.NDArray[np.float32]
TOLERANCE = 1e-4
"""How far the largest logit may be from the original's, relative to the largest logit where that exceeds 1."""

COARSE = 1e-2
"""The same for graphs that round to 16 or 8 bits inside: a rounding moves by a whole step."""

LEVELS = (0.0, 0.25, 1.0)
"""Noise of the images that both graphs are run on."""

_ROUNDED = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}


def images(shape: tuple[int, int, int], count: int) -> npt.NDArray[np.float32]:
    """At least 2 `count` images [n,C,H,W], uniform and under noise of each level; n is a multiple of `count`."""
    each = -(-2 * count // len(LEVELS))
    found = np.concatenate([x for level in LEVELS for x in batches(shape, level, [max(each, 2)])])
    return found[: len(found) // count * count]


def tolerance(model: onnx.ModelProto) -> float:
    """How far logits may move, by what the graph itself rounds to."""
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    kinds |= {a.i for node in model.graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    kinds |= {a.t.data_type for node in model.graph.node for a in node.attribute if a.name == "value"}
    return COARSE if kinds & _ROUNDED else TOLERANCE


def distance(expected: Logits, found: Logits) -> float:
    """The largest difference, relative to the largest number where that exceeds 1; infinite for other shapes or NaN."""
    if expected.shape != found.shape or (np.isfinite(expected) != np.isfinite(found)).any():
        return float("inf")
    finite = np.isfinite(expected)
    expected, found = np.where(finite, expected, 0).astype(np.float64), np.where(finite, found, 0).astype(np.float64)
    return float(np.abs(expected - found).max(initial=0) / max(1.0, np.abs(expected).max(initial=0)))


def check_same(before: onnx.ModelProto, after: onnx.ModelProto, step: str, name: str) -> None:
    """Raises `BundleError` where two base models differ beyond the tolerance; `step` says what was done."""
    image = next(value for value in before.graph.input if value.name == INPUT)
    channels, height, width = (d.dim_value for d in image.type.tensor_type.shape.dim[1:])
    x = images((channels, height, width), 1)
    with opened(before, name) as first, opened(after, name) as second:
        worst = distance(run(first, x, LEVELS[1], name), run(second, x, LEVELS[1], name))
    refuse_beyond(worst, tolerance(before), step, name)


def refuse_beyond(worst: float, limit: float, step: str, name: str) -> None:
    """Raises `BundleError` where `worst` is not within `limit`."""
    if not worst <= limit:
        raise BundleError(
            f"{name}: {step} would move its logits by {worst:.2g}, more than {limit:g}; nothing was exported: do that "
            "step yourself, and pass a file that needs it no more"
        )


class Original:
    """The user's file as it is, and the logits [n,classes] that it gives to images: what each rewrite must give.

    `image` names its input, of the element type `dtype`; `batch` is the size that it fixes, 0 for none; `statistics`
    (mean and std, each [C,1,1]) are taken off the images before this file sees them; `channels_last`: it sees them as
    [n,H,W,C]. `tail`: whether its logits have axes of size 1 behind. Raises `BundleError` where it does not run, or
    gives other logits each time.
    """

    def __init__(
        self,
        path: Path,
        model: onnx.ModelProto,
        image: str,
        dtype: npt.DTypeLike,
        shape: tuple[int, int, int],
        batch: int,
        statistics: tuple[Logits, Logits] | None,
        channels_last: bool = False,
    ) -> None:
        self.name, self.limit, self.batch = str(path), tolerance(model), batch
        self.x = images(shape, max(batch, 1))
        self.given = self.x if statistics is None else (self.x - statistics[0]) / statistics[1]
        feed = self.given.astype(dtype)
        if channels_last:
            feed = np.ascontiguousarray(feed.transpose(0, 2, 3, 1))
        more: dict[str, Any] = {v.name: np.float32(LEVELS[1]) for v in model.graph.input if v.name == SIGMA}
        with opened(path, self.name) as session:

            def logits(size: int) -> Logits:
                parts = [feed[start : start + size] for start in range(0, len(feed), size)]
                found = np.concatenate([np.asarray(session.run(None, {image: part, **more})[0]) for part in parts])
                if len(found) != len(feed):
                    raise ValueError(f"it gives {len(found)} rows for {len(feed)} images")
                return found.astype(np.float32)

            try:
                found = logits(batch or len(feed))
            except Exception as error:
                if batch:
                    raise self._broken(error) from error
                self.batch = 1  # a batch that is free by name only
                try:
                    found = logits(1)
                except Exception:
                    raise self._broken(error) from error
            steady = distance(found, logits(self.batch or len(feed)))
        if not steady <= self.limit:
            raise BundleError(f"{path} gives other logits to the same images each time: a base model draws no numbers")
        self.tail = found.ndim > 2 and set(found.shape[2:]) == {1}
        self.expected = found.reshape(found.shape[:2]) if self.tail else found

    def _broken(self, error: Exception) -> BundleError:
        return BundleError(f"{self.name}: ONNX Runtime cannot run it ({one_line(error)}); mend it, or export it again")

    def check(self, model: onnx.ModelProto, step: str, size: int = 0, *, normalised: bool = True) -> None:
        """Raises `BundleError` where the base model `model`, in batches of `size` (0: any), computes something else.

        `step` is what was done last; `normalised` says whether the model takes what the file takes.
        """
        worst = self._distance(model, [size], self.given if normalised else self.x)
        refuse_beyond(worst, self.limit, step, self.name)

    def check_freed(self, model: onnx.ModelProto) -> None:
        """Raises `BundleError` where `model` does not give each image what the file gives it, in any batch."""
        try:
            worst = self._distance(model, [0, 1], self.given)
        except BundleError:
            worst = float("inf")
        if not worst <= self.limit:
            raise BundleError(
                f"{self.name} fixes its batch size to {self.batch}, inside of the graph too; export it again with a "
                "dynamic batch"
            )

    def _distance(self, model: onnx.ModelProto, sizes: Sequence[int], x: npt.NDArray[np.float32]) -> float:
        """How far the logits of `x` are from the file's, in batches of each of `sizes` (0: all at once), at worst."""
        with opened(model, self.name) as session:

            def logits(size: int) -> Logits:
                parts = [x[start : start + size] for start in range(0, len(x), size)]
                return np.concatenate([run(session, part, LEVELS[1], self.name) for part in parts])

            return max(distance(self.expected, logits(size or len(x))) for size in sizes)
