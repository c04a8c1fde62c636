"""CUDA: ONNX Runtime's kernels for NVIDIA's GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from dualsmooth.runtime.engine.providers.nvidia import Nvidia


@dataclass(frozen=True)
class Cuda(Nvidia):
    """- `tf32`: allow TensorFloat-32 in float32 layers
    - `memory`: most bytes of the arena, 0 for no limit
    """

    tf32: bool = False
    memory: int = 0

    name = "cuda"
    onnxruntime_name = "CUDAExecutionProvider"

    def arithmetic(self) -> str:
        return "tf32" if self.tf32 else "no tf32"

    def session_options(self, *, threads: int, lanes: int, shape: tuple[int, ...]) -> dict[str, str]:
        limit = {"gpu_mem_limit": str(self.memory)} if self.memory else {}
        return {"device_id": str(self.device_number), "use_tf32": str(int(self.tf32)), **limit}
