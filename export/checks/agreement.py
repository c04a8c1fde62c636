"""How far a graph of another precision votes like its fp32 original: arg-max agreement under noise, level by level."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.engine.trial import LEVELS, safe_level
from dualsmooth.runtime.errors import BundleError, InputError, ProviderError, one_line
from dualsmooth.runtime.files import sha256_of

if TYPE_CHECKING:
    from dualsmooth.export.onnx.precision import Samples

FLOORS = {"fp16": 0.99, "bf16": 0.97, "int8": 0.95}
"""The least agreement at any level with which a file is exported, unless it is forced."""

_CHUNK = 32


@dataclass(frozen=True)
class Pictures:
    """Images float32 [M,C,H,W] in [0, 1] that a model will see, and where they are from. Never test images."""

    name: str
    calibration: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.float32]

    @staticmethod
    def choose(
        name: str, images: npt.NDArray[Any] | ImageFiles, *, calibrate: int = 128, measure: int = 512, seed: int = 0
    ) -> Pictures:
        """Pick images for calibration, and others to measure agreement on, from uint8 or float32 `images` [M,C,H,W]."""
        dtype = np.dtype(np.uint8) if isinstance(images, ImageFiles) else images.dtype
        if len(images.shape) != 4 or len(images) < 2 or dtype not in (np.uint8, np.float32):
            raise InputError(
                f"{name} holds {dtype} {list(images.shape)}; expected 2 or more, uint8 or float32 [M,C,H,W]"
            )
        order = np.random.default_rng(seed).permutation(len(images))
        first = min(calibrate, len(images) // 2)
        scale = np.float32(255 if dtype == np.uint8 else 1)
        parts = (images[order[:first]], images[order[first : first + measure]])
        small, rest = (np.ascontiguousarray(np.asarray(part).astype(np.float32) / scale) for part in parts)
        if not (min(small.min(), rest.min()) >= 0 and max(small.max(), rest.max()) <= 1):
            raise InputError(f"{name} holds values outside of [0, 1]; pass unnormalised images")
        return Pictures(name, small, rest)

    @staticmethod
    def random(shape: tuple[int, int, int]) -> Pictures:
        """Uniform random images, where there are no real ones: a rough measure only."""
        generator = np.random.default_rng(0)
        return Pictures("uniform random images", *(generator.random((n, *shape), np.float32) for n in (1, 128)))

    def noisy(self, levels: Sequence[float], *, held_out: bool = False, seed: int = 0) -> Samples:
        """The images at every level, each under noise of its own, in batches that mix no levels."""
        images = self.held_out if held_out else self.calibration
        generator = np.random.Generator(np.random.SFC64([seed, int(held_out)]))
        return [
            (part + np.float32(level) * generator.standard_normal(part.shape, np.float32), float(level))
            for start in range(0, len(images), _CHUNK)
            for part in [images[start : start + _CHUNK]]
            for level in levels
        ]


def agreement(
    original: onnx.ModelProto, other: onnx.ModelProto, samples: Samples, name: str
) -> dict[float, float]:  # fmt: skip
    """The share of noisy images on which both graphs vote for the same class, for each level of `samples`."""
    same: dict[float, list[float]] = {}
    with opened(original, name) as first, opened(other, name) as second:
        for batch, level in samples:
            votes = [run(session, batch, level, name).argmax(1) for session in (first, second)]
            same.setdefault(level, []).extend((votes[0] == votes[1]).tolist())
    return {level: float(np.mean(values)) for level, values in same.items()}


def check_floor(found: Mapping[str, Mapping[float, float]], floor: float, *, force: bool) -> None:
    """Raises `BundleError` where any file agrees with fp32 on less than `floor` at any level, unless forced."""
    worst, name, level = min((share, name, level) for name, levels in found.items() for level, share in levels.items())
    if worst < floor and not force:
        raise BundleError(
            f"{name} votes like its fp32 original on {worst:.1%} of the noisy images at sigma {level:g}, less than the "
            f"floor of {floor:.1%}; calibrate on images like those it will see, lower --floor, or pass --force"
        )


class opened:
    """An ONNX Runtime session on the CPU for a graph in memory, however large, or for the file at a path. One of which
    the engine crashes is a `BundleError`, or opened at a lower level of graph optimisation."""

    def __init__(self, model: onnx.ModelProto | Path, name: str) -> None:
        self._model, self._name = model, name
        self._folder = tempfile.TemporaryDirectory(prefix="dualsmooth-export-")

    def __enter__(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise ProviderError(
                "export compares with ONNX Runtime, which is not installed; pip install 'dualsmooth[export,cpu]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        source = Path(self._folder.name) / "model.onnx"
        try:
            if isinstance(self._model, Path):
                source, graph = self._model, onnx.load(self._model, load_external_data=False).graph
                files = [source, *(source.parent / name for name in _beside(graph))]
            else:
                graph = self._model.graph
                onnx.save(self._model, source, save_as_external_data=self._model.ByteSize() > 1 << 30)
                files = sorted(source.parent.iterdir())
            images = [value.type.tensor_type.shape.dim for value in graph.input]
            shape = next(([d.dim_value or 1 for d in dims[1:]] for dims in images if len(dims) == 4), [])
            level = safe_level(source, " ".join(map(sha256_of, files)), shape, name=self._name)
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
            return onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        except BundleError:
            self.__exit__()
            raise
        except Exception as error:
            self.__exit__()
            said = one_line(error).replace(str(source), self._name)
            raise BundleError(f"{self._name}: ONNX Runtime cannot load it ({said}); update onnxruntime") from error

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


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
