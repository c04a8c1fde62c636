from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.commands import doctor
from dualsmooth.runtime.commands.doctor import BAD, NOTE, Finding, examine
from dualsmooth.runtime.engine import batch_size, instruction_set
from dualsmooth.runtime.engine.providers import cores as provider_cores
from dualsmooth.runtime.engine.providers.cuda import Cuda
from dualsmooth.runtime.noise import selftest
from dualsmooth.runtime.noise.generators import Source
from dualsmooth.training.loop.precision import autocast_for


def finding(subject: str) -> Finding:
    (found,) = examine(subject)
    return found


def test_a_sound_machine_has_nothing_bad(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    checked = ["versions", "engine", "providers", "processor", "noise", "certificate"]
    chosen = ["kernels", "threads", "batch size", "8-bit noise", "training"]
    assert [f["subject"] for f in found] == checked + chosen
    assert all(f["state"] != BAD for f in found)
    assert main(["doctor"]) == 0
    assert "the shipped bundle loads and votes on cpu" in capsys.readouterr().out


def test_two_wheels_that_overwrite_each_other_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "onnxruntime-gpu" else real(name))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "onnxruntime and onnxruntime-gpu are installed together" in out
    assert "fix: pip uninstall -y onnxruntime onnxruntime-gpu" in out


def test_a_wheel_whose_files_are_not_its_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "onnxruntime" else real(name))
    engine = finding("engine")
    assert engine.state == BAD
    assert "onnxruntime 0.1 is installed but" in engine.text
    assert engine.fix == "pip install --force-reinstall onnxruntime==0.1"


def test_a_missing_engine_is_found_and_the_rest_is_still_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    states = {found.subject: found for found in examine()}
    assert states["engine"].state == BAD
    assert states["engine"].fix == "pip install 'dualsmooth[cpu]'"
    assert states["certificate"].state == BAD
    assert states["noise"].state == doctor.GOOD


def test_libraries_from_wheels_are_loaded_before_any_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA from pip lies outside of the loader's path."""
    loaded: list[object] = []
    monkeypatch.setattr(doctor, "offered", lambda _: ["cpu", "cuda"])
    monkeypatch.setattr(Cuda, "prepare", classmethod(lambda cls, engine: loaded.append(engine)))
    monkeypatch.setattr(Cuda, "why_missing", classmethod(lambda cls: "" if loaded else "CUDA is missing"))
    assert finding("providers").state == doctor.GOOD


def test_a_tampered_generator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Source.standard_normal

    def shifted(self: Source, *, dtype: type, out: np.ndarray) -> None:
        real(self, dtype=dtype, out=out)
        out += 0.05

    monkeypatch.setattr(Source, "standard_normal", shifted)
    monkeypatch.setattr(selftest, "_known_answers", lambda *_: None)
    broken = finding("noise")
    assert broken.state == BAD
    assert "mean is" in broken.text


@pytest.mark.parametrize(
    ("line", "name", "state"),
    [
        ("flags : fpu avx2", "avx2", NOTE),
        ("flags : fpu avx2 avx_vnni", "avx_vnni", doctor.GOOD),
        ("flags : avx2 avx512f avx512_vnni amx_int8", "amx_int8", doctor.GOOD),
        ("Features : fp asimd asimddp", "asimddp", doctor.GOOD),
    ],
)
def test_the_instructions_that_decide_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, name: str, state: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    monkeypatch.setattr(instruction_set, "CPUINFO", tmp_path / "cpuinfo")
    instruction_set.flags.cache_clear()
    found = finding("processor")
    assert (found.state, instruction_set.instruction_set()) == (state, name)
    assert name in found.text
    assert finding("kernels").text.startswith(f"{name}, ")
    monkeypatch.undo()
    instruction_set.flags.cache_clear()


@pytest.mark.parametrize(
    ("text", "said", "amx"),
    [
        (
            "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_vnni avx512_bf16\n\nmodel name: b\n",
            "AMD EPYC (avx2, avx512_vnni, avx512_bf16)",
            False,
        ),
        (
            "model name : Intel(R) Xeon(R): 4\nflags : avx2 amx_int8 amx_tile\n",
            "Intel(R) Xeon(R): 4 (avx2, amx_int8)",
            True,
        ),
        ("model name : old\nflags : sse\n", "old (no known vector extensions)", False),
    ],
)
def test_the_processor_is_named_with_its_instructions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str, amx: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(instruction_set, "CPUINFO", tmp_path / "cpuinfo")
    instruction_set.flags.cache_clear()
    found = (instruction_set.described(), instruction_set.has_amx(), finding("processor").text)
    monkeypatch.undo()
    instruction_set.flags.cache_clear()
    assert found[:2] == (said, amx)
    assert found[2].startswith(said.split(" (")[0])


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ({"avx2", "amx_bf16"}, "bfloat16 on this CPU, since the processor has amx_bf16"),
        ({"avx512_vnni"}, "float32 on this CPU, since the processor has neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_the_precision_of_training_is_that_of_training(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], chosen: str
) -> None:
    monkeypatch.setattr(instruction_set, "flags", lambda: frozenset(flags))
    assert chosen in finding("training").text
    assert autocast_for("auto", "cpu") == ("bf16" if "bfloat16" in chosen else "off")


@pytest.mark.parametrize(
    ("cores", "said"),
    [
        (1, "one part of a batch at a time on 1 threads, since this process may use 1 cores ("),
        (4, "4 parts of a batch side by side on 4 threads, since this process may use 4 cores ("),
        (
            12,
            "one part of a batch at a time on the engine's choice of threads, since this process may use 12 cores; "
            "more than 8",
        ),
    ],
)
def test_threads_are_those_that_the_engine_takes(monkeypatch: pytest.MonkeyPatch, cores: int, said: str) -> None:
    for module in (doctor, provider_cores):
        monkeypatch.setattr(module, "usable_cores", lambda: cores)
    assert said in finding("threads").text


def test_the_remembered_batch_size_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `load` measured and kept, under the same key."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "256, near the best (docs/bench.md); auto: not measured yet" in finding("batch size").text
    monkeypatch.setattr(batch_size, "measured", lambda *_: 64)
    assert ds.load(SHIPPED_BUNDLE, batch_size="auto").batch_size == 64
    assert "auto: measured 64 for the shipped bundle on this machine" in finding("batch size").text


def test_the_noise_of_images_is_that_which_certificates_get() -> None:
    smoother = ds.load(SHIPPED_BUNDLE)
    image = np.zeros(smoother.bundle.input_shape, np.uint8)
    noise = smoother.certify(image, budget=ds.Fixed(50)).seed.noise
    assert finding("8-bit noise").text.startswith(f"{noise} by {noise.generator}: ")
