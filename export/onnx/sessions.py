"""Graphs run in ONNX Runtime on the CPU: opened with care, fed noisy images, their logits taken."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from dualsmooth.runtime.engine.trial import LEVELS, safe_level
from dualsmooth.runtime.errors import BundleError, ProviderError, one_line
from dualsmooth.runtime.files import sha256_of


@contextmanager
def opened(model: onnx.ModelProto | Path, name: str) -> Iterator[Any]:
    """An ONNX Runtime session on the CPU for a graph in memory, however large, or for the file at a path.

    One of which the engine crashes is a `BundleError`, or opened at a lower level of graph optimisation. `name` is for
    messages.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ProviderError(
            "export compares with ONNX Runtime, which is not installed; pip install 'dualsmooth[export,cpu]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="dualsmooth-export-") as folder:
        source = model if isinstance(model, Path) else Path(folder) / "model.onnx"
        try:
            session = _session(model, source, name)
        except BundleError:
            raise
        except Exception as error:
            said = one_line(error).replace(str(source), name)
            raise BundleError(f"{name}: ONNX Runtime cannot load it ({said}); update onnxruntime") from error
        yield session


def _session(model: onnx.ModelProto | Path, source: Path, name: str) -> Any:
    """A session for the file `source`, which is `model`, or is written here."""
    import onnxruntime

    if isinstance(model, Path):
        graph = onnx.load(model, load_external_data=False).graph
        files = [source, *(source.parent / place for place in _beside(graph))]
    else:
        graph = model.graph
        onnx.save(model, source, save_as_external_data=model.ByteSize() > 1 << 30)
        files = sorted(source.parent.iterdir())
    images = [value.type.tensor_type.shape.dim for value in graph.input]
    shape = next(([d.dim_value or 1 for d in dims[1:]] for dims in images if len(dims) == 4), [])
    level = safe_level(source, " ".join(map(sha256_of, files)), shape, name=name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    return onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _beside(graph: onnx.GraphProto) -> list[str]:
    """The names of the files that hold the weights of a graph, where they are not in its own."""
    places = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
    return sorted(places)


def run(session: Any, batch: npt.NDArray[np.float32], sigma: float, name: str) -> npt.NDArray[np.float32]:
    """The logits of one batch; `sigma` goes to graphs that take it. Raises `BundleError`."""
    feed: dict[str, Any] = {"x": batch}
    if any(value.name == "sigma" for value in session.get_inputs()):
        feed["sigma"] = np.asarray(sigma, np.float32)
    try:
        logits: npt.NDArray[np.float32] = session.run(["logits"], feed)[0]
    except Exception as error:
        raise BundleError(f"{name}: ONNX Runtime fails on a batch of {len(batch)} ({one_line(error)})") from error
    return logits


def batches(shape: tuple[int, int, int], sigma: float, sizes: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
    """Uniform random images with noise of level `sigma`, in batches of `sizes`, always the same."""
    generator = np.random.default_rng(0)
    for size in sizes:
        noise = generator.standard_normal((size, *shape), np.float32) * np.float32(sigma)
        yield generator.random((size, *shape), np.float32) + noise
