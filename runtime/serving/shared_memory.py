"""Images in system shared memory, which a server on the same machine reads in place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt


@contextlib.contextmanager
def shared(client: Any, tensor: Any, pixels: npt.NDArray[np.float32]) -> Iterator[None]:
    """Have `tensor`, an input for `client`, read from shared memory that holds `pixels` until the block ends."""
    from tritonclient.utils import shared_memory as shm

    name, size = f"dualsmooth-{uuid4().hex}", pixels.nbytes
    region = shm.create_shared_memory_region(name, f"/{name}", size)
    try:
        shm.set_shared_memory_region(region, [pixels])
        client.register_system_shared_memory(name, f"/{name}", size)
        try:
            tensor.set_shared_memory(name, size)
            yield
        finally:
            _patiently(lambda: client.unregister_system_shared_memory(name))
    finally:
        shm.destroy_shared_memory_region(region)


def _patiently(release: Callable[[], object], seconds: float = 5.0) -> None:
    """Shared memory is in use until the server has let go of the request, a moment after its answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            release()
        except Exception:
            if time.monotonic() > end:
                return
            time.sleep(0.01)
        else:
            return
