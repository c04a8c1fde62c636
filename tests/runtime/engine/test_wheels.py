"""Why a provider that was asked for is not there: wheels, drivers, libraries; and no silent fallback."""

from __future__ import annotations

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
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import PROVIDERS, nvidia, provider_of


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toys.two_levels(tmp_path / "b")


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
              if PROVIDERS[name].onnxruntime_name not in offered}  # fmt: skip
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
    everything = [provider.onnxruntime_name for provider in PROVIDERS.values()]
    module = SimpleNamespace(
        __version__="9.9", SessionOptions=Options, InferenceSession=session,
        get_available_providers=lambda: everything, set_default_logger_severity=lambda level: None,
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
    monkeypatch.setattr(PROVIDERS[provider], "why_missing", lambda *_: "")
    with pytest.raises(ds.ProviderError, match=f"{provider} was asked for but CPUExecutionProvider runs"):
        OnnxEngine(ds.read_bundle(bundle), provider_of(provider))
    (entries, given), *_ = made
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert given["enable_fallback"] == 0
    assert given["providers"] == [PROVIDERS[provider].onnxruntime_name]


def test_a_provider_that_does_not_start_says_why(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*args: Any, **given: Any) -> Any:
        raise RuntimeError("nodes are assigned to the default CPU EP,\nbut fallback is disabled")

    stand_in(monkeypatch, session)
    monkeypatch.setattr(nvidia, "library", lambda stem: None)
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

    monkeypatch.setattr(nvidia, "library", library)
    assert re.search(reason, PROVIDERS[provider].why_missing())
