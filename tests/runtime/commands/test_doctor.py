from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.cli import main
from dualsmooth.runtime.commands import doctor
from dualsmooth.runtime.commands.doctor import BAD, NOTE, Finding, examine
from dualsmooth.runtime.engine import instruction_set
from dualsmooth.runtime.noise import selftest
from dualsmooth.runtime.noise.generators import Source


def finding(subject: str) -> Finding:
    return next(found for found in examine() if found.subject == subject)


def test_a_sound_machine_has_nothing_bad(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["subject"] for f in found] == ["versions", "engine", "providers", "processor", "noise", "certificate"]
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
    monkeypatch.undo()
    instruction_set.flags.cache_clear()
