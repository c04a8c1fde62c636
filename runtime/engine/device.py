"""Batches that live on a device are bound to the session by address, and never cross the bus."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt


def run_bound(session: Any, batch: Any, sigma: npt.NDArray[np.float32] | None, location: tuple[str, int]) -> Any:
    """Logits (NumPy) of a batch [m,C,H,W] that lies at `location` (ONNX Runtime's name of a device, and its number)."""
    on_host = isinstance(batch, np.ndarray)
    if not on_host:
        import_module("cupy").cuda.Stream.null.synchronize()  # the noise is there; ONNX Runtime has streams of its own
    address = batch.ctypes.data if on_host else batch.data.ptr
    binding = session.io_binding()
    binding.bind_input("x", *location, np.float32, batch.shape, address)
    if sigma is not None:
        binding.bind_cpu_input("sigma", sigma)
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    (logits,) = binding.copy_outputs_to_cpu()
    return logits
