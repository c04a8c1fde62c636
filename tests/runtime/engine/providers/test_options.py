"""Options of the providers, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

import dualsmooth as ds
from dualsmooth.runtime.engine.providers import cores, parse_options, provider_of
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.providers.cuda import Cuda
from dualsmooth.runtime.engine.providers.openvino import OpenVino
from dualsmooth.runtime.engine.providers.tensorrt import TensorRT

SHAPE = (256, 3, 32, 32)


def options_of(provider: str, **given: Any) -> dict[str, str]:
    return provider_of(provider, given).session_options(threads=2, lanes=1, shape=SHAPE)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt", "openvino"])
def test_defaults_pin_the_precision(provider: str) -> None:
    """Nothing is left to a provider that would round more than float32 does, and what it does is in the name."""
    given, name = options_of(provider), provider_of(provider).arithmetic()
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
    assert Cuda(tf32=True).arithmetic() == "tf32"
    assert OpenVino(precision="bf16").arithmetic() == "CPU, float layers in bf16"


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
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    assert provider_of(provider, {"streams": streams}).lanes_and_threads(threads, 784) == expected
    monkeypatch.setattr(cores, "usable_cores", lambda: 64)
    assert provider_of(provider).lanes_and_threads(0, 784) == (1, 0)


def test_large_inputs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    assert Cpu().lanes_and_threads(0, 3 * 64 * 64) == (4, 4)
    assert Cpu().lanes_and_threads(0, 3 * 224 * 224) == (1, 0)
    assert Cpu().lanes_and_threads(2, 3 * 224 * 224) == (1, 2)
    assert Cpu(streams=2).lanes_and_threads(2, 3 * 224 * 224) == (2, 2)


def test_gpus_take_whole_batches() -> None:
    for provider in (Cuda(), TensorRT(device="1"), OpenVino(device="GPU")):
        assert provider.lanes_and_threads(4, 784) == (1, 4)
    given = OpenVino().session_options(threads=4, lanes=4, shape=SHAPE)
    assert json.loads(given["load_config"])["CPU"]["NUM_STREAMS"] == "4"


def test_tensorrt_says_whether_tf32_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert TensorRT().arithmetic() == "float layers in fp32, no tf32"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert TensorRT().arithmetic() == "float layers in fp32, tf32 allowed"


def test_only_gpus_keep_one_shape() -> None:
    shapes = {made.name: made.keeps_shape() for made in (Cpu(), Cuda(), TensorRT(), OpenVino())}
    assert shapes == {"cpu": False, "cuda": True, "tensorrt": True, "openvino": False}
    assert OpenVino(device="GPU").keeps_shape()


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
        provider_of(provider, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_the_command_line() -> None:
    given = parse_options(["arena=off", "spinning=on"])
    assert provider_of("cpu", given) == Cpu(arena=False, spinning=True)
    for bad in ("arena", "=off"):
        with pytest.raises(ds.InputError, match="expected NAME=VALUE"):
            parse_options([bad])
