from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dualsmooth.runtime.engine import instruction_set
from dualsmooth.training import ClassifierConfig, Config, train
from dualsmooth.training.loop.precision import autocast_for, settled


def processor(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(instruction_set, "flags", lambda: frozenset(flags))


@pytest.mark.parametrize(("flags", "device", "expected"), [
    (("avx512f",), "cpu", "off"), (("avx512f", "avx512_bf16"), "cpu", "bf16"), (("amx_bf16",), "cpu", "bf16"),
    (("amx_bf16",), "cuda", "off"), ((), "cpu", "off"),
])  # fmt: skip
def test_auto_is_what_the_processor_is_fast_at(
    flags: tuple[str, ...], device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, *flags)
    assert autocast_for("auto", device) == expected
    assert [autocast_for(said, device) for said in ("bf16", "off")] == ["bf16", "off"]


def test_it_is_decided_once_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, "amx_bf16")
    said: list[str] = []
    config = settled(Config("d", classifier=ClassifierConfig(autocast="off")), None, "cpu", said.append)
    assert (config.classifier.autocast, config.estimator.autocast) == ("off", "bf16")
    assert said == ["estimator: trained in bfloat16, since the processor has amx_bf16"]
    processor(monkeypatch)
    again = settled(Config("d"), config, "cpu", said.append)
    assert (again.classifier.autocast, again.estimator.autocast) == ("off", "bf16")
    assert len(said) == 1


def test_a_run_keeps_what_it_began_with(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command goes on, on another machine too, and ends with the same network."""
    short = dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, epochs=1, autocast="auto"))
    processor(monkeypatch)
    first = train(short, tmp_path / "run", threads=1)
    processor(monkeypatch, "amx_bf16")
    assert train(short, tmp_path / "run", threads=1) == first
    assert "is finished" in capsys.readouterr().out
    assert 'autocast = "off"' in (tmp_path / "run" / "config.toml").read_text()
