"""What the providers on NVIDIA's GPUs share: the driver, the device, libraries, and batches that live there."""

from __future__ import annotations

import ctypes
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import InputError, ProviderError, one_line

_WHEEL = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True)
class Nvidia(Provider):
    """- `device`: number of the GPU"""

    libraries: ClassVar[dict[str, tuple[str, str]]] = {
        "libcudart.so": ("CUDA", _WHEEL),
        "libcublasLt.so": ("cuBLAS", _WHEEL),
        "libcudnn.so": ("cuDNN", _WHEEL),
    }
    """Shared libraries that it needs besides the driver's: what each is part of, and what installs it."""

    device: str = ""

    wheel = "onnxruntime-gpu"
    extra = "gpu"

    def check(self) -> None:
        if not (self.device or "0").isdecimal():
            raise InputError(f"device {self.device!r} of provider {self.name}; expected a number, e.g. 0")

    @classmethod
    def prepare(cls, onnxruntime: Any) -> None:
        if hasattr(onnxruntime, "preload_dlls"):
            with redirect_stdout(io.StringIO()):  # it prints what it does not find; `why_missing` says so
                onnxruntime.preload_dlls(
                    directory=""
                )  # CUDA and cuDNN from their pip wheels, where these are installed

    @classmethod
    def why_missing(cls) -> str:
        driver = library("libcuda.so")
        if driver is None:
            return (
                "no NVIDIA driver (libcuda.so.1 cannot be loaded): install the driver, or pass the GPU into the "
                "container"
            )
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
            return "no CUDA device is visible (see nvidia-smi, and CUDA_VISIBLE_DEVICES)"
        for stem, (what, fix) in cls.libraries.items():
            if library(stem) is None:
                return f"{what} is missing ({stem} cannot be loaded): {fix}"
        return ""

    def keeps_shape(self) -> bool:
        return True

    def array_module(self) -> Any:
        """CuPy where it is installed: noise is made on the device, and never crosses the bus."""
        if find_spec("cupy") is None:
            return np
        try:
            cupy = import_module("cupy")
            cupy.cuda.Device(self.device_number).use()
            cupy.zeros(1)
        except Exception as error:
            raise ProviderError(
                f"provider {self.name}: CuPy does not work ({one_line(error)}); install the wheel for your CUDA, e.g. "
                "pip install cupy-cuda12x or cupy-cuda13x, or uninstall it: noise is then made on the CPU"
            ) from error
        return cupy

    @property
    def device_number(self) -> int:
        return int(self.device or 0)

    def location(self) -> tuple[str, int]:
        return "cuda", self.device_number


def library(stem: str) -> Any | None:
    """A shared library of any major version: from the loader's path, or already loaded into this process."""
    names = [stem, *(f"{stem}.{major}" for major in range(1, 16))]
    maps = Path("/proc/self/maps")
    if maps.exists():
        names += [line.split()[-1] for line in maps.read_text().splitlines() if f"/{stem}" in line]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
