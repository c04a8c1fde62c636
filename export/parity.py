"""Parity: the ONNX file computes what the PyTorch module computes, measured before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dualsmooth.export.graph import takes_sigma
from dualsmooth.runtime.errors import BundleError, ProviderError, one_line

BATCHES = (1, 3, 257)
TOLERANCE = 1e-4


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
    module that is conditional on the noise level is told. The difference is taken relative to the
    largest logit where that exceeds 1. Raises `BundleError` above 1e-4, for another shape than [N,outputs], and for
    logits that are not finite.
    """
    session = _session(onnx_bytes, name)
    generator = np.random.default_rng(0)
    training, worst = module.training, 0.0
    module.eval()
    try:
        for batch, level in itertools.product(BATCHES, np.atleast_1d(np.asarray(sigma, np.float32))):
            noise = generator.standard_normal((batch, *input_shape), np.float32) * level
            x = generator.random((batch, *input_shape), np.float32) + noise
            told = [np.asarray(level)] if takes_sigma(module) else []
            with torch.no_grad():
                device = next((p.device for p in module.parameters()), torch.device("cpu"))
                expected = module(*(torch.from_numpy(v).to(device) for v in (x, *told))).float().cpu().numpy()
            actual = _run(session, {"x": x, **({"sigma": told[0]} if told else {})}, name)
            for logits, source in ((expected, "the PyTorch module"), (actual, "ONNX Runtime")):
                if logits.shape != (batch, outputs) or not np.isfinite(logits).all():
                    raise BundleError(
                        f"{name}: {source} gives logits of shape {list(logits.shape)} for a batch of {batch}; expected "
                        f"finite values of shape {[batch, outputs]}; check classes and sigmas against the network"
                    )
            scale = max(1.0, float(np.abs(expected).max()))
            worst = max(worst, float(np.abs(actual - expected).max()) / scale)
    finally:
        module.train(training)
    if not worst <= TOLERANCE:
        raise BundleError(
            f"{name}: ONNX Runtime differs from PyTorch by {worst:.2g} in logits, more than {TOLERANCE:g}; nothing was "
            "exported; look for operators that the exporter or the engine treats differently"
        )
    return worst


def _session(onnx_bytes: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            "export compares with ONNX Runtime, which is not installed; pip install 'dualsmooth[export,cpu]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"{name}: ONNX Runtime cannot load it ({one_line(error)}); update onnxruntime") from error


def _run(session: Any, feed: dict[str, np.ndarray[Any, np.dtype[np.float32]]], name: str) -> Any:
    try:
        return session.run(["logits"], feed)[0]
    except Exception as error:
        raise BundleError(f"{name}: ONNX Runtime fails on a batch of {len(feed['x'])} ({one_line(error)})") from error
