"""What a network must be before its votes count: inputs and outputs, finite logits, rows that do not mix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.errors import BundleError, EngineError

ROW_TOLERANCE = 1e-3
"""How far rounding may move the logits of an image in other company, relative to the largest one."""


def width_of(bundle: Bundle, model: BaseModel) -> int:
    """How many logits a base model of the bundle gives for each input."""
    return len(bundle.sigmas if model == bundle.estimator else bundle.classes)


def checked_logits(
    name: str, logits: object, rows: int, width: int, used: int | None = None
) -> npt.NDArray[np.float32]:
    """The first `used` rows (all by default) of `logits` if these are finite and all is [rows,width]; else
    `EngineError`: a failure never becomes a vote."""
    if not isinstance(logits, np.ndarray) or logits.shape != (rows, width):
        raise EngineError(f"{name} returned shape {getattr(logits, 'shape', None)}; expected {(rows, width)}")
    if logits.dtype.kind != "f":
        raise EngineError(f"{name} returned {logits.dtype} logits; expected float32")
    logits = logits[:used]
    if not np.isfinite(logits).all():
        raise EngineError(f"{name} returned NaN or infinite logits; no certificate is issued")
    return logits


def check_rows(path: Path, logits: Callable[[npt.NDArray[np.float32]], Any], bundle: Bundle) -> bool:
    """Raises `BundleError` where the `logits` of one input depend on the others in its batch: the votes of the network
    at `path` would not be independent. Two batches [3,C,H,W] that differ in the middle; False where the network cannot
    run them (`EngineError`), which it will say again."""
    normals = np.random.Generator(np.random.SFC64(0)).standard_normal((3, *bundle.input_shape), np.float32)
    batch = np.float32(0.5) + np.float32(bundle.trial_level) * normals
    try:
        outer = []
        for middle in (batch[1], 4 * batch[1] + 1):
            batch[1] = middle
            outer.append(logits(batch.copy())[::2])
    except EngineError:
        return False
    apart = float(np.abs(np.subtract(*outer, dtype=np.float64)).max())
    if apart > ROW_TOLERANCE * max(float(np.abs(rows).max()) for rows in outer):
        raise BundleError(
            f"{path} lets one image of a batch change the logits of another by {apart:.3g}; export a "
            "network that treats each row alone (in eval mode, no reduction over the batch)"
        )
    return True


def check_graph(session: Any, path: Path, shape: tuple[int, int, int], width: int) -> bool:
    """Inputs `x` float32 [N,C,H,W] and optionally scalar `sigma`, output `logits` float32 [N,width], N dynamic: raises
    `BundleError`, and returns whether there is a `sigma`."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    found = ", ".join(f"{v.name} {v.type} {v.shape}" for v in [*inputs.values(), *outputs.values()])
    good = set(inputs) in ({"x"}, {"x", "sigma"}) and set(outputs) == {"logits"}
    good = good and all(v.type == "tensor(float)" for v in [*inputs.values(), *outputs.values()])
    good = good and _fits(inputs["x"].shape, shape) and _fits(outputs["logits"].shape, (width,))
    if not good:
        raise BundleError(
            f"{path} has {found[:300]}; expected x float32 [N,{','.join(map(str, shape))}] and logits float32 "
            f"[N,{width}] with dynamic N"
        )
    return "sigma" in inputs


def _fits(declared: list[Any], wanted: tuple[int, ...]) -> bool:
    """Whether a declared shape is [dynamic, *wanted]; a named (unknown) inner size is left to the run-time check."""
    inner = declared[1:] if declared else []
    return (
        len(declared) == len(wanted) + 1
        and not isinstance(declared[0], int)
        and all(not isinstance(d, int) or d == w for d, w in zip(inner, wanted, strict=True))
    )
