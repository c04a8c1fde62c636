"""TensorRT: an engine for one GPU and one batch size, built from the graph at its first load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dualsmooth.runtime.engine.providers.nvidia import Nvidia, library
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import cache_folder

_PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class TensorRT(Nvidia):
    """- `precision` (fp32, fp16): of float layers
    - `cache`: folder for compiled engines; by default in the user's cache folder
    """

    precision: str = "fp32"
    cache: str = ""

    name = "tensorrt"
    onnxruntime_name = "TensorrtExecutionProvider"
    libraries = Nvidia.libraries | {"libnvinfer.so": ("TensorRT", "pip install tensorrt")}
    seconds = 1800.0

    def check(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError(f"precision {self.precision!r} of provider tensorrt; expected {', '.join(_PRECISIONS)}")
        super().check()

    @classmethod
    def prepare(cls, onnxruntime: Any) -> None:
        super().prepare(onnxruntime)
        if (found := find_spec("tensorrt_libs")) and found.submodule_search_locations:
            for path in sorted(Path(found.submodule_search_locations[0]).glob("libnvinfer*.so*")):
                library(str(path))

    def arithmetic(self) -> str:
        tf32 = "no tf32" if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else "tf32 allowed"
        return f"float layers in {self.precision}, {tf32}"

    def session_options(self, *, threads: int, lanes: int, shape: tuple[int, ...]) -> dict[str, str]:
        profile = f"x:{'x'.join(map(str, shape))}"
        return {
            "device_id": str(self.device_number),
            "trt_fp16_enable": str(int(self.precision == "fp16")),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": self.cache or str(cache_folder() / "tensorrt"),
            "trt_timing_cache_enable": "1",
            **{f"trt_profile_{end}_shapes": profile for end in ("min", "opt", "max")},
        }
