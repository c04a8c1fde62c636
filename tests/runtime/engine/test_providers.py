"""Execution providers: options, and why one that was asked for is not there."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.engine import providers
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.providers import (
    PROVIDERS,
    EngineOptions,
    arithmetic,
    keeps_shape,
    lanes_and_threads,
    parse_options,
    provider_options,
    why_missing,
)

SHAPE = (256, 3, 32, 32)


def options_of(provider: str, **given: Any) -> dict[str, str]:
    return provider_options(provider, EngineOptions.of(provider, given), threads=2, shape=SHAPE)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_defaults_pin_the_precision(provider: str) -> None:
    """Nothing is left to a provider that would round more than float32 does, and what it does is in the name."""
    given, name = options_of(provider), arithmetic(provider, EngineOptions())
    if provider == "cuda":
        assert given["use_tf32"] == "0"
        assert name == "no tf32"
    elif provider == "tensorrt":
        assert given["trt_fp16_enable"] == "0"
        assert "float layers in fp32" in name
    elif provider == "openvino":
        settings = json.loads(given["load_config"])["CPU"]
        assert settings == {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "2"}
        assert name == "CPU, float layers in fp32"
    else:
        assert given == {}
        assert name == ""


def test_options_reach_the_provider() -> None:
    assert options_of("cuda", tf32="on", device=1, memory=1 << 30) == {
        "device_id": "1", "use_tf32": "1", "gpu_mem_limit": str(1 << 30),
    }  # fmt: skip
    found = options_of("tensorrt", precision="fp16", cache="/tmp/engines")
    assert found["trt_fp16_enable"] == "1"
    assert found["trt_engine_cache_path"] == "/tmp/engines"
    assert {found[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")} == {"x:256x3x32x32"}
    settings = json.loads(options_of("openvino", precision="bf16", streams=2, device="GPU")["load_config"])
    assert settings == {"GPU": {"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "2"}}
    assert arithmetic("cuda", EngineOptions(tf32=True)) == "tf32"
    assert arithmetic("openvino", EngineOptions(precision="bf16")) == "CPU, float layers in bf16"


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize(
    ("streams", "threads", "expected"),
    [
        (0, 1, (1, 1)),
        (0, 2, (2, 2)),
        (0, 8, (8, 8)),
        (0, 9, (1, 9)),  # parts of a batch would be small
        (0, 0, (4, 4)),  # the cores of this process
        (1, 2, (1, 2)),
        (1, 0, (1, 0)),
        (2, 16, (2, 16)),
        (4, 2, (4, 4)),
    ],
)
def test_parts_of_a_batch_run_side_by_side_on_cpus(
    provider: str, streams: int, threads: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "usable_cores", lambda: 4)
    assert lanes_and_threads(provider, EngineOptions(streams=streams), threads, 784) == expected
    monkeypatch.setattr(providers, "usable_cores", lambda: 64)
    assert lanes_and_threads(provider, EngineOptions(), 0, 784) == (1, 0)


def test_large_inputs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "usable_cores", lambda: 4)
    assert lanes_and_threads("cpu", EngineOptions(), 0, 3 * 64 * 64) == (4, 4)
    assert lanes_and_threads("cpu", EngineOptions(), 0, 3 * 224 * 224) == (1, 0)
    assert lanes_and_threads("cpu", EngineOptions(), 2, 3 * 224 * 224) == (1, 2)
    assert lanes_and_threads("cpu", EngineOptions(streams=2), 2, 3 * 224 * 224) == (2, 2)


def test_gpus_take_whole_batches() -> None:
    for provider, device in (("cuda", ""), ("tensorrt", "1"), ("openvino", "GPU")):
        assert lanes_and_threads(provider, EngineOptions(device=device), 4, 784) == (1, 4)
    given = provider_options("openvino", EngineOptions(), threads=4, lanes=4, shape=SHAPE)
    assert json.loads(given["load_config"])["CPU"]["NUM_STREAMS"] == "4"


def test_tensorrt_says_whether_tf32_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert arithmetic("tensorrt", EngineOptions()) == "float layers in fp32, no tf32"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert arithmetic("tensorrt", EngineOptions()) == "float layers in fp32, tf32 allowed"


def test_only_gpus_keep_one_shape() -> None:
    shapes = {name: keeps_shape(name, EngineOptions()) for name in PROVIDERS}
    assert shapes == {"cpu": False, "cuda": True, "tensorrt": True, "openvino": False}
    assert keeps_shape("openvino", EngineOptions(device="GPU"))


@pytest.mark.parametrize(
    ("provider", "given", "message"),
    [
        ("abacus", {}, "provider 'abacus' is unknown; expected one of cpu, cuda, tensorrt, openvino"),
        ("cpu", {"tf32": True}, "provider cpu has no option 'tf32'; expected one of arena, spinning, streams"),
        ("cuda", {"arena": False}, "provider cuda has no option 'arena'"),
        ("cpu", {"arena": "maybe"}, "option arena is 'maybe'; expected on or off"),
        ("cuda", {"memory": -1}, "option memory is '-1'; expected an integer from 0"),
        ("cuda", {"device": "GPU"}, "device 'GPU' of provider cuda; expected a number"),
        ("openvino", {"streams": True}, "option streams"),
        ("cpu", {"streams": 10**30}, "expected at most 256"),
        ("openvino", {"precision": "int8"}, "precision 'int8' of provider openvino; expected fp32, bf16, fp16"),
    ],
)
def test_bad_options_are_one_line(provider: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ds.InputError) as caught:
        EngineOptions.of(provider, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_the_command_line() -> None:
    given = parse_options(["arena=off", "spinning=on"])
    assert EngineOptions.of("cpu", given) == EngineOptions(arena=False, spinning=True)
    for bad in ("arena", "=off"):
        with pytest.raises(ds.InputError, match="expected NAME=VALUE"):
            parse_options([bad])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )


def test_two_wheels_at_once_are_an_error_for_every_provider(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.20.0")
    for provider in PROVIDERS:
        with pytest.raises(ds.ProviderError) as caught:
            ds.load(bundle, provider)
        assert "onnxruntime and onnxruntime-gpu" in str(caught.value)
        assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(caught.value)


def test_a_provider_of_another_wheel_names_the_wheel(bundle: Path) -> None:
    offered = onnxruntime.get_available_providers()
    absent = {name: extra for name, extra in (("cuda", "gpu"), ("tensorrt", "gpu"), ("openvino", "openvino"))
              if PROVIDERS[name] not in offered}  # fmt: skip
    assert absent
    for provider, extra in absent.items():
        with pytest.raises(ds.ProviderError) as caught:
            ds.load(bundle, provider)
        assert f"provider {provider} is not in the installed onnxruntime" in str(caught.value)
        assert f"pip install 'dualsmooth[{extra}]'" in str(caught.value)


def test_an_engine_that_cannot_be_imported_is_told_from_one_that_is_not_there(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ds.ProviderError, match=r"not installed.*dualsmooth\[openvino\]"):
        ds.load(bundle, "openvino")


class Options:
    """Session options that take anything."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


def stand_in(monkeypatch: pytest.MonkeyPatch, session: Any) -> SimpleNamespace:
    """An onnxruntime that offers every provider and makes `session`."""
    module = SimpleNamespace(
        __version__="9.9", SessionOptions=Options, InferenceSession=session,
        get_available_providers=lambda: [*PROVIDERS.values()], set_default_logger_severity=lambda level: None,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    return module


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_silent_fallback_at_creation_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    made: list[Any] = []

    def session(path: str, options: Options, **given: Any) -> Any:
        made.append((options.entries, given))
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    stand_in(monkeypatch, session)
    monkeypatch.setattr("dualsmooth.runtime.engine.engine.why_missing", lambda provider: "")
    with pytest.raises(ds.ProviderError, match=f"{provider} was asked for but CPUExecutionProvider runs"):
        Engine(ds.read_bundle(bundle), provider)
    (entries, given), *_ = made
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert given["enable_fallback"] == 0
    assert given["providers"] == [PROVIDERS[provider]]


def test_a_provider_that_does_not_start_says_why(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*args: Any, **given: Any) -> Any:
        raise RuntimeError("nodes are assigned to the default CPU EP,\nbut fallback is disabled")

    stand_in(monkeypatch, session)
    monkeypatch.setattr(providers, "_library", lambda stem: None)
    with pytest.raises(ds.ProviderError, match="no NVIDIA driver"):
        ds.load(bundle, "cuda")
    with pytest.raises(ds.ProviderError, match="provider openvino on device NPU: it does not start") as caught:
        ds.load(bundle, "openvino", provider_options={"device": "NPU"})
    assert "\n" not in str(caught.value)


class Driver:
    """libcuda with `devices` devices."""

    def __init__(self, devices: int) -> None:
        self.devices = devices

    def cuInit(self, flags: int) -> int:
        return 0 if self.devices else 100

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0


@pytest.mark.parametrize(
    ("provider", "devices", "missing", "reason"),
    [
        ("cuda", 0, "", "no CUDA device is visible"),
        ("cuda", 1, "libcudnn.so", r"cuDNN is missing .*pip install 'onnxruntime-gpu\[cuda,cudnn\]'"),
        ("cuda", 1, "libcublasLt.so", "cuBLAS is missing"),
        ("tensorrt", 1, "libnvinfer.so", "TensorRT is missing .*pip install tensorrt"),
        ("cuda", 1, "libnvinfer.so", "^$"),
        ("cpu", 0, "libcuda.so", "^$"),
    ],
)
def test_what_cuda_lacks_is_named(
    provider: str, devices: int, missing: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(stem: str) -> Any:
        return None if stem == missing else Driver(devices)

    monkeypatch.setattr(providers, "_library", library)
    assert re.search(reason, why_missing(provider))
