"""The runtime: both smoothing stages on ONNX Runtime, certificates and evaluations. NumPy, SciPy, onnxruntime only."""

from dualsmooth.runtime.budgets import Adaptive, AtRadii, AtRadius, Budget, Fixed, parse_budget
from dualsmooth.runtime.bundle import Bundle, read_bundle
from dualsmooth.runtime.certificate import Certificate, Prediction
from dualsmooth.runtime.client import RemoteSmoother, connect
from dualsmooth.runtime.columns import read_results
from dualsmooth.runtime.errors import (
    BundleError,
    CertificateError,
    DualSmoothError,
    EngineError,
    InputError,
    ProviderError,
    ServerError,
)
from dualsmooth.runtime.noise import Noise, parse_noise
from dualsmooth.runtime.smoother import Smoother, load

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
