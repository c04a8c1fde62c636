"""Batches that live on the GPU: noise is made and bound to the session there (CuPy), and never crosses the bus."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.engine.providers import CUDA, TENSORRT, EngineOptions
from dualsmooth.runtime.errors import ProviderError, one_line


def array_module(provider: str, options: EngineOptions) -> Any:
    """CuPy for the CUDA providers where it is installed, else NumPy. Raises `ProviderError` where CuPy is broken."""
    if provider not in (CUDA, TENSORRT) or find_spec("cupy") is None:
        return np
    try:
        cupy = import_module("cupy")
        cupy.cuda.Device(int(options.device or 0)).use()
        cupy.zeros(1)
    except Exception as error:
        raise ProviderError(
            f"provider {provider}: CuPy does not work ({one_line(error)}); install the wheel for your CUDA, e.g. pip "
            "install cupy-cuda12x or cupy-cuda13x, or uninstall it: noise is then made on the CPU"
        ) from error
    return cupy


def run_bound(session: Any, batch: Any, sigma: npt.NDArray[np.float32] | None, *, device: str, number: int) -> Any:
    """Logits (NumPy) of a batch [m,C,H,W] that lies on `device` (`cuda` or `cpu`): bound by address, not copied."""
    on_host = isinstance(batch, np.ndarray)
    if not on_host:
        import_module("cupy").cuda.Stream.null.synchronize()  # the noise is there; ONNX Runtime has streams of its own
    address = batch.ctypes.data if on_host else batch.data.ptr
    binding = session.io_binding()
    binding.bind_input("x", device, number, np.float32, batch.shape, address)
    if sigma is not None:
        binding.bind_cpu_input("sigma", sigma)
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    (logits,) = binding.copy_outputs_to_cpu()
    return logits
