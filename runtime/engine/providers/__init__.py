"""Execution providers: what they are called, which options they take, and why one is not there.

ONNX Runtime falls back to the CPU silently; here a provider that was asked for and does not run is an error.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dualsmooth.runtime.errors import InputError, ProviderError, one_line
from dualsmooth.runtime.files import cache_folder

CPU, CUDA, TENSORRT, OPENVINO = "cpu", "cuda", "tensorrt", "openvino"
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    CUDA: "CUDAExecutionProvider",
    TENSORRT: "TensorrtExecutionProvider",
    OPENVINO: "OpenVINOExecutionProvider",
}
"""Our names of the providers, and ONNX Runtime's."""
WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Wheels with an engine. They overwrite each other's files: an environment can hold one of them."""

MOST_STREAMS = 256
MOST_LANES = 8
"""With more cores than this, parts of a usual batch would be too small to run side by side with one thread each."""
MOST_VALUES = 1 << 15
"""Up to 3 x 104 x 104; with a ResNet-50 at 3 x 224 x 224, two lanes did 0.8 of what one does."""

_EXTRAS = {CPU: "cpu", CUDA: "gpu", TENSORRT: "gpu", OPENVINO: "openvino"}
_PRECISIONS = {OPENVINO: {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}, TENSORRT: {"fp32": "", "fp16": ""}}
_TAKEN_BY: dict[str, tuple[str, ...]] = {
    "arena": (CPU,),
    "spinning": (CPU,),
    "device": (CUDA, TENSORRT, OPENVINO),
    "precision": (TENSORRT, OPENVINO),
    "tf32": (CUDA,),
    "memory": (CUDA,),
    "streams": (CPU, OPENVINO),
    "cache": (TENSORRT, OPENVINO),
}
_LIBRARIES = {
    CUDA: {"libcudart.so": "CUDA", "libcublasLt.so": "cuBLAS", "libcudnn.so": "cuDNN"},
    TENSORRT: {"libnvinfer.so": "TensorRT"},
}
_CUDA_FIX = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True)
class EngineOptions:
    """How a provider runs the networks. Those that change the arithmetic are part of the engine's name, and so of each
    certificate: `precision`, `tf32`, `device`.

    - `arena` (cpu): memory is kept between calls; off, it is given back, at some cost in speed
    - `spinning` (cpu): idle threads wait actively, ONNX Runtime's default; off, they leave the core to others, the
      noise thread among them: measured to be as fast alone, and faster beside a server (docs/bench.md)
    - `device`: number of the GPU (cuda, tensorrt), or CPU, GPU, NPU (openvino)
    - `precision` (openvino: fp32, bf16, fp16; tensorrt: fp32, fp16): of float layers; fp32 unless another is given
    - `tf32` (cuda): allow TensorFloat-32 in float32 layers
    - `memory` (cuda): most bytes of the arena, 0 for no limit
    - `streams` (cpu, openvino): parts of a batch that run side by side and share the threads; 0: one for each thread
      up to `MOST_LANES`, measured to be faster than all threads on one part (docs/bench.md)
    - `cache` (tensorrt, openvino): folder for compiled engines; the user's cache folder for tensorrt, none for openvino
    """

    arena: bool = True
    spinning: bool = False
    device: str = ""
    precision: str = "fp32"
    tf32: bool = False
    memory: int = 0
    streams: int = 0
    cache: str = ""

    @classmethod
    def of(cls, provider: str, given: Mapping[str, Any] | None) -> EngineOptions:
        """From names and values; text is read as the type of the option. Raises `InputError`."""
        if provider not in PROVIDERS:
            raise InputError(f"provider {str(provider)[:40]!r} is unknown; expected one of {', '.join(PROVIDERS)}")
        values: dict[str, Any] = {}
        for name, value in (given or {}).items():
            if provider not in _TAKEN_BY.get(name, ()):
                known = ", ".join(n for n, takers in _TAKEN_BY.items() if provider in takers)
                raise InputError(f"provider {provider} has no option {str(name)[:40]!r}; expected one of {known}")
            values[name] = _value(name, value, {f.name: f.default for f in fields(cls)}[name])
        options = cls(**values)
        if provider in _PRECISIONS and options.precision not in _PRECISIONS[provider]:
            known = ", ".join(_PRECISIONS[provider])
            raise InputError(f"precision {options.precision!r} of provider {provider}; expected {known}")
        if provider in (CUDA, TENSORRT) and not (options.device or "0").isdecimal():
            raise InputError(f"device {options.device!r} of provider {provider}; expected a number, e.g. 0")
        if options.streams > MOST_STREAMS:
            raise InputError(f"option streams is {options.streams}; expected at most {MOST_STREAMS}")
        return options


def _value(name: str, value: Any, default: Any) -> Any:
    words = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if isinstance(default, bool):
        found = words.get(str(value).lower())
        if found is None:
            raise InputError(f"option {name} is {str(value)[:40]!r}; expected on or off")
        return found
    if isinstance(default, int):
        if isinstance(value, bool) or not str(value).isdecimal():
            raise InputError(f"option {name} is {str(value)[:40]!r}; expected an integer from 0")
        return int(value)
    return str(value)


def parse_options(texts: list[str]) -> dict[str, str]:
    """`["arena=off", …]` as a dictionary. Raises `InputError`."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not (name and equals):
            raise InputError(f"--provider-option {text!r}; expected NAME=VALUE, e.g. arena=off")
    return {name: value for name, _, value in pairs}


def lanes_and_threads(provider: str, options: EngineOptions, threads: int, values: int) -> tuple[int, int]:
    """How many parts of a batch run side by side, and the threads for all of them together (0: the engine's choice).

    `values` of one input: the layers of large ones do not fit into the caches once for each part.
    """
    if provider != CPU and not (provider == OPENVINO and options.device in ("", "CPU")):
        return 1, threads
    if options.streams:
        return options.streams, threads and max(threads, options.streams)
    cores = threads or usable_cores()
    return (cores, cores) if cores <= MOST_LANES and values <= MOST_VALUES else (1, threads)


def usable_cores() -> int:
    """Cores that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provider_options(
    provider: str, options: EngineOptions, *, threads: int, shape: tuple[int, ...], lanes: int = 1
) -> dict[str, str]:
    """ONNX Runtime's options of a provider, for batches of `shape` [N,C,H,W] and `lanes` callers at once."""
    device = options.device or "0"
    if provider == CUDA:
        limit = {"gpu_mem_limit": str(options.memory)} if options.memory else {}
        return {"device_id": device, "use_tf32": str(int(options.tf32)), **limit}
    if provider == TENSORRT:
        profile = f"x:{'x'.join(map(str, shape))}"
        folder = options.cache or str(cache_folder() / "tensorrt")
        return {
            "device_id": device,
            "trt_fp16_enable": str(int(options.precision == "fp16")),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            **{f"trt_profile_{end}_shapes": profile for end in ("min", "opt", "max")},
        }
    if provider == OPENVINO:
        place = options.device or "CPU"
        settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[OPENVINO][options.precision]}
        settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads and place == "CPU" else {}
        streams = lanes if place == "CPU" else options.streams
        settings |= {"NUM_STREAMS": str(streams)} if options.streams or streams > 1 else {}
        settings |= {"CACHE_DIR": options.cache} if options.cache else {}
        return {"device_type": place, "load_config": json.dumps({place: settings})}
    return {}


def keeps_shape(provider: str, options: EngineOptions) -> bool:
    """Whether new batch shapes are slow there, so that every batch is filled up to the same size."""
    return provider in (CUDA, TENSORRT) or (provider == OPENVINO and options.device not in ("", "CPU"))


def arithmetic(provider: str, options: EngineOptions) -> str:
    """What of the options changes results, for the engine's name; empty where there is nothing to choose."""
    said = []
    if provider == CUDA:
        said = ["tf32" if options.tf32 else "no tf32"]
    elif provider == TENSORRT:
        said = [
            f"float layers in {options.precision}",
            "no tf32" if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else "tf32 allowed",
        ]
    elif provider == OPENVINO:
        said = [options.device or "CPU", f"float layers in {options.precision}"]
    return ", ".join(said)


def installed_wheels() -> dict[str, str]:
    """The engine wheels that pip knows of, with their versions."""
    found = {}
    for name in WHEELS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def clash() -> tuple[str, str] | None:
    """What is wrong with the installed engine wheels, and how to mend it."""
    wheels = installed_wheels()
    if len(wheels) < 2:
        return None
    return (
        f"{' and '.join(wheels)} are installed together and overwrite each other's files",
        f"pip uninstall -y {' '.join(wheels)}; then install one extra: dualsmooth[cpu], [gpu] or [openvino]",
    )


def onnxruntime_for(provider: str) -> Any:
    """The module `onnxruntime` of an environment that can run `provider`. Raises `ProviderError`."""
    if clashing := clash():
        raise ProviderError(f"provider {provider}: {clashing[0]}; mend it with: {clashing[1]}")
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            raise ProviderError(
                f"onnxruntime is not installed; install one engine, e.g. pip install 'dualsmooth[{_EXTRAS[provider]}]'"
            ) from error
        raise ProviderError(f"onnxruntime cannot be imported ({one_line(error)}); run `dualsmooth doctor`") from error
    offered = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in offered:
        wheels = " ".join(installed_wheels()) or "onnxruntime"
        raise ProviderError(
            f"provider {provider} is not in the installed {wheels} {onnxruntime.__version__}, which offers "
            f"{', '.join(ours(offered)) or 'none that dualsmooth uses'}; "
            f"pip uninstall -y {wheels}; pip install 'dualsmooth[{_EXTRAS[provider]}]'"
        )
    if provider != CPU:
        onnxruntime.set_default_logger_severity(4)  # what fails is raised
    if provider in (CUDA, TENSORRT) and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find; `why_missing` says so
            onnxruntime.preload_dlls(directory="")  # CUDA and cuDNN from their pip wheels, where these are installed
    if provider == TENSORRT and (found := find_spec("tensorrt_libs")) and found.submodule_search_locations:
        for library in sorted(Path(found.submodule_search_locations[0]).glob("libnvinfer*.so*")):
            _library(str(library))
    return onnxruntime


def ours(offered: list[str]) -> list[str]:
    """Our names of the providers that ONNX Runtime offers."""
    return [name for name, theirs in PROVIDERS.items() if theirs in offered]


def why_missing(provider: str) -> str:
    """Why an offered provider does not start, and what to install; empty where nothing is seen to be wrong."""
    if provider not in (CUDA, TENSORRT):
        return ""
    driver = _library("libcuda.so")
    if driver is None:
        return (
            "no NVIDIA driver (libcuda.so.1 cannot be loaded): install the driver, or pass the GPU into the container"
        )
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "no CUDA device is visible (see nvidia-smi, and CUDA_VISIBLE_DEVICES)"
    for library, what in {**_LIBRARIES[CUDA], **(_LIBRARIES[TENSORRT] if provider == TENSORRT else {})}.items():
        if _library(library) is None:
            fix = "pip install tensorrt" if what == "TensorRT" else _CUDA_FIX
            return f"{what} is missing ({library} cannot be loaded): {fix}"
    return ""


def _library(stem: str) -> Any | None:
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
