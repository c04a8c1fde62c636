"""OpenVINO: Intel's kernels, for its CPUs, GPUs and NPUs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dualsmooth.runtime.engine.providers.cores import check_streams, on_cores
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import InputError

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""Our names, and OpenVINO's."""


@dataclass(frozen=True)
class OpenVino(Provider):
    """- `device`: CPU (default), GPU or NPU
    - `precision` (fp32, bf16, fp16): of float layers; left alone, OpenVINO would take bf16 where it can
    - `streams`: as for `cpu`; on other devices, parts that the device runs side by side
    - `cache`: folder for compiled engines; none by default
    """

    device: str = ""
    precision: str = "fp32"
    streams: int = 0
    cache: str = ""

    name = "openvino"
    onnxruntime_name = "OpenVINOExecutionProvider"
    wheel = "onnxruntime-openvino"
    extra = "openvino"
    by_instruction_set = True
    spare_lanes = 1

    def check(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError(f"precision {self.precision!r} of provider openvino; expected {', '.join(_PRECISIONS)}")
        check_streams(self.streams)

    @property
    def place(self) -> str:
        """OpenVINO's name of the device."""
        return self.device or "CPU"

    def arithmetic(self) -> str:
        return f"{self.place}, float layers in {self.precision}"

    def session_options(self, *, threads: int, lanes: int, shape: tuple[int, ...]) -> dict[str, str]:
        settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision]}
        if threads and self.place == "CPU":
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        streams = lanes if self.place == "CPU" else self.streams
        if self.streams or streams > 1:
            settings["NUM_STREAMS"] = str(streams)
        if self.cache:
            settings["CACHE_DIR"] = self.cache
        return {"device_type": self.place, "load_config": json.dumps({self.place: settings})}

    def lanes_and_threads(self, threads: int, values: int) -> tuple[int, int]:
        return on_cores(self.streams, threads, values) if self.place == "CPU" else (1, threads)

    def keeps_shape(self) -> bool:
        return self.place != "CPU"
