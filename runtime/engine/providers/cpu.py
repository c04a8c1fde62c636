"""ONNX Runtime's own kernels, on any CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.runtime.engine.providers.cores import check_streams, on_cores
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import BundleError, DualSmoothError, ProviderError, one_line


@dataclass(frozen=True)
class Cpu(Provider):
    """- `arena`: memory is kept between calls; off, it is given back, at some cost in speed
    - `spinning`: idle threads wait actively, ONNX Runtime's default; off, they leave the core to others, the noise
      thread among them: measured to be as fast alone, and faster beside a server (docs/bench.md)
    - `streams`: parts of a batch that run side by side and share the threads; 0: one for each thread up to
      `MOST_LANES`, measured to be faster than all threads on one part (docs/bench.md)
    """

    arena: bool = True
    spinning: bool = False
    streams: int = 0

    name = "cpu"
    onnxruntime_name = "CPUExecutionProvider"
    wheel = "onnxruntime"
    extra = "cpu"
    brings_libraries = False
    survives_fork = True
    by_instruction_set = True

    def check(self) -> None:
        check_streams(self.streams)

    def entries(self) -> dict[str, str]:
        return {"session.intra_op.allow_spinning": str(int(self.spinning))}

    def tune(self, settings: Any) -> None:
        super().tune(settings)
        settings.enable_cpu_mem_arena = self.arena

    def lanes_and_threads(self, threads: int, values: int) -> tuple[int, int]:
        return on_cores(self.streams, threads, values)

    def not_opened(self, path: Path, precision: str, error: Exception) -> DualSmoothError:
        if precision == "bf16":
            return ProviderError(
                f"provider cpu has no bfloat16 arithmetic for {path.name} ({one_line(error)}); run the bundle on "
                "cuda, tensorrt or openvino, or export it in another precision"
            )
        return BundleError(f"ONNX Runtime cannot load {path} ({one_line(error)}); export the bundle again")
