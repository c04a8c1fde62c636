"""The runtime: both smoothing stages on ONNX Runtime, certificates and evaluations. NumPy, SciPy, onnxruntime only."""

from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
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
from dualsmooth.runtime.smoothing.certificate import Certificate, Prediction
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
    "DualSmoothError",
    "EngineError",
    "Fixed",
    "InputError",
    "Noise",
    "Prediction",
    "ProviderError",
    "RemoteSmoother",
    "ServerError",
    "Smoother",
    "connect",
    "load",
    "parse_budget",
    "parse_noise",
    "read_bundle",
    "read_results",
]
