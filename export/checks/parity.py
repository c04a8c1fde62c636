"""Parity: the ONNX file computes what the PyTorch module computes, measured before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from dualsmooth.export.onnx.modules import ROWS, at_rest, takes_sigma
from dualsmooth.export.onnx.rewrites import TOLERANCE
from dualsmooth.export.onnx.sessions import batches, opened, run
from dualsmooth.runtime.errors import BundleError, one_line

BATCHES = (1, 3, 257)


def check_parity(
    module: nn.Module,
    onnx_bytes: bytes,
    input_shape: tuple[int, int, int],
    outputs: int,
    sigma: float | Sequence[float],
    name: str,
) -> float:
    """The largest difference of logits between `module` and its ONNX file on noisy inputs, at three batch sizes.

    Inputs are uniform images [N,C,H,W] plus Gaussian noise of level `sigma`, or of each of several levels, which a
    module that is conditional on the noise level is told. The difference is taken relative to the largest logit where
    that exceeds 1. Raises `BundleError` above 1e-4, for another shape than [N,outputs], and for logits that are not
    finite.
    """
    try:
        graph = onnx.load_from_string(onnx_bytes)
    except Exception as error:
        raise BundleError(f"{name}: cannot load it as an ONNX graph ({one_line(error)})") from error
    with opened(graph, name) as session:
        return compare(module, session, input_shape, outputs, sigma, name)


def compare(
    module: nn.Module,
    session: Any,
    input_shape: tuple[int, int, int],
    outputs: int,
    sigma: float | Sequence[float],
    name: str,
    sizes: Sequence[int] = BATCHES,
) -> float:
    """As `check_parity`, for a session that is already open and batches of other `sizes`."""
    worst = 0.0
    levels = [sigma] if isinstance(sigma, int | float) else sigma
    with at_rest(module) as network, torch.no_grad():
        for level, x in ((s, x) for s in levels for x in batches(input_shape, s, sizes)):
            logits = network(torch.from_numpy(x), *([torch.tensor(level)] if takes_sigma(network) else []))
            if not isinstance(logits, torch.Tensor):
                raise BundleError(
                    f"{name}: the PyTorch module returns a {type(logits).__name__}; expected one tensor "
                    f"of logits [N,{outputs}]"
                )
            expected, actual = logits.numpy(), run(session, x, level, name)
            for found, source in ((expected, "the PyTorch module"), (actual, "ONNX Runtime")):
                if found.shape != (len(x), outputs):
                    raise BundleError(
                        f"{name}: {source} gives logits of shape {list(found.shape)} for a batch of {len(x)}; expected "
                        f"finite values of shape {[len(x), outputs]}; check classes and sigmas against the network"
                    )
                if not np.isfinite(found).all():
                    raise BundleError(f"{name}: {source} gives logits that are not finite{_culprit(network)}")
            scale = max(1.0, float(np.abs(expected).max()))
            worst = max(worst, float(np.abs(actual - expected).max()) / scale)
    if not worst <= TOLERANCE:
        raise BundleError(
            f"{name}: ONNX Runtime differs from PyTorch by {worst:.2g} in logits, more than {TOLERANCE:g}; nothing was "
            "exported; look for operators that the exporter or the engine treats differently"
        )
    return worst


def _culprit(network: nn.Module) -> str:
    """Which weights are to blame for logits that are not finite, or what to look for."""
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            return f": its {name} holds NaN or infinity; load weights that do not"
    return " (NaN or infinity) on noisy images, though its weights are; look for log, sqrt or a division"


def check_rows(
    model: onnx.ModelProto, input_shape: tuple[int, int, int], outputs: int, sigma: float, name: str
) -> None:
    """Each row of a batch gets the logits that it gets alone: a vote must not depend on what else is in the batch.

    Raises `BundleError` otherwise, and for logits that are not finite or not [N,outputs].
    """
    (x,) = batches(input_shape, sigma, [3])
    x[1] *= 4  # a row that would spoil statistics of the batch
    with opened(model, name) as session:
        together = run(session, x, sigma, name)
        alone = [run(session, x[i : i + 1], sigma, name) for i in range(3)]
    if together.shape != (3, outputs) or not np.isfinite(together).all() or any(a.shape != (1, outputs) for a in alone):
        raise BundleError(
            f"{name}: ONNX Runtime gives logits of shape {list(together.shape)} for a batch of 3; expected finite "
            f"values of shape {[3, outputs]}; check classes and sigmas against the network, and its batch"
        )
    scale = np.maximum(1.0, np.abs(together).max(1, keepdims=True))
    worst = float((np.abs(np.concatenate(alone) - together) / scale).max())
    if not worst <= ROWS:
        raise BundleError(
            f"{name}: the logits of an image change by {worst:.2g} with the other images of its batch; such votes "
            "prove nothing: export in evaluation mode, without statistics of the batch"
        )
