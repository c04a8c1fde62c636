"""The runtime: both smoothing stages on ONNX Runtime, certificates and evaluations. NumPy, SciPy, onnxruntime only."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it once, when it is imported

if TYPE_CHECKING:
    from dualsmooth.runtime.bundle.describing import bundles
    from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
    from dualsmooth.runtime.datasets.samples import sample, sample_label
    from dualsmooth.runtime.errors import (
        BundleError,
        CertificateError,
        DualSmoothError,
        EngineError,
        InputError,
        ProviderError,
        ServerError,
    )
    from dualsmooth.runtime.evaluation.columns import read_results
    from dualsmooth.runtime.noise.streams import Noise, parse_noise
    from dualsmooth.runtime.serving.client import RemoteSmoother, connect
    from dualsmooth.runtime.serving.limits import Limits
    from dualsmooth.runtime.serving.protocol import Refused, Stopped
    from dualsmooth.runtime.serving.service import Service
    from dualsmooth.runtime.smoothing.certificate import Certificate
    from dualsmooth.runtime.smoothing.component import certified_radius
    from dualsmooth.runtime.smoothing.deriver import Deriver
    from dualsmooth.runtime.smoothing.prediction import Prediction
    from dualsmooth.runtime.smoothing.smoother import Smoother, load
    from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadii, AtRadius, Budget, Fixed, parse_budget

__all__ = [
    "Adaptive",
    "AtRadii",
    "AtRadius",
    "Budget",
    "Bundle",
    "BundleError",
    "Certificate",
    "CertificateError",
    "Deriver",
    "DualSmoothError",
    "EngineError",
    "Fixed",
    "InputError",
    "Limits",
    "Noise",
    "Prediction",
    "ProviderError",
    "Refused",
    "RemoteSmoother",
    "ServerError",
    "Service",
    "Smoother",
    "Stopped",
    "bundles",
    "certified_radius",
    "connect",
    "load",
    "parse_budget",
    "parse_noise",
    "read_bundle",
    "read_results",
    "sample",
    "sample_label",
]

_HOME = {
    "Adaptive": "statistics.budgets",
    "AtRadii": "statistics.budgets",
    "AtRadius": "statistics.budgets",
    "Budget": "statistics.budgets",
    "Bundle": "bundle.reading",
    "BundleError": "errors",
    "Certificate": "smoothing.certificate",
    "CertificateError": "errors",
    "Deriver": "smoothing.deriver",
    "DualSmoothError": "errors",
    "EngineError": "errors",
    "Fixed": "statistics.budgets",
    "InputError": "errors",
    "Limits": "serving.limits",
    "Noise": "noise.streams",
    "Prediction": "smoothing.prediction",
    "ProviderError": "errors",
    "Refused": "serving.protocol",
    "RemoteSmoother": "serving.client",
    "ServerError": "errors",
    "Service": "serving.service",
    "Smoother": "smoothing.smoother",
    "Stopped": "serving.protocol",
    "bundles": "bundle.describing",
    "certified_radius": "smoothing.component",
    "connect": "serving.client",
    "load": "smoothing.smoother",
    "parse_budget": "statistics.budgets",
    "parse_noise": "noise.streams",
    "read_bundle": "bundle.reading",
    "read_results": "evaluation.columns",
    "sample": "datasets.samples",
    "sample_label": "datasets.samples",
}
"""The module that each of these lies in."""


if not TYPE_CHECKING:  # a name that does not exist is an error to type checkers

    def __getattr__(name: str) -> Any:
        """What is exported is imported on first use: whoever wants one part does not wait for all."""
        if name in _HOME:
            return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
