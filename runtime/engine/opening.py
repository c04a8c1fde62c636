"""Open the engine of a bundle on this machine, at the batch size that was asked for or is fastest."""

from __future__ import annotations

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.engine.batch_size import AUTO, best_batch_size
from dualsmooth.runtime.engine.engine import warm_up
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import InputError


def check_batch_size(batch_size: int | str) -> None:
    """Raises `InputError`."""
    if not (batch_size == AUTO or (type(batch_size) is int and 1 <= batch_size <= 65536)):
        raise InputError(f"batch_size is {batch_size!r}; expected 1 to 65536, or {AUTO!r}")


def open_engine(
    bundle: Bundle, provider: Provider, *, threads: int = 0, batch_size: int | str = 256
) -> tuple[OnnxEngine, int]:
    """The engine, and its batch size: `batch_size`, or the measured one for `auto`. Where shapes are kept, every
    network has run once. Raises `InputError`, `ProviderError`, `BundleError`, `EngineError`."""

    def opened(size: int) -> OnnxEngine:
        return OnnxEngine(bundle, provider, threads=threads, batch_size=size)

    size = batch_size if isinstance(batch_size, int) else best_batch_size(bundle, opened, (threads, provider))
    engine = opened(size)
    if provider.keeps_shape():
        for _ in warm_up(bundle, engine, size):
            pass
    return engine, size
