"""The long run in short, and that it would see a leak and a difference."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import long_run
import pytest


def samples(count: int, **slopes: float) -> list[long_run.Sample]:
    flat = long_run.Sample(0.0, 0, 0, 0, 200.0, 8, 3)
    return [dataclasses.replace(flat, **{k: getattr(flat, k) + s * i for k, s in slopes.items()}) for i in range(count)]


def test_growth_is_seen() -> None:
    assert not any(long_run.growth(samples(40)).values())
    assert long_run.growth(samples(40, resident_mib=1.0))["resident_mib"] > long_run.ALLOWED["resident_mib"]
    assert long_run.growth(samples(40, handles=1))["handles"] > 0
    assert long_run.growth(samples(40, threads=1))["threads"] > 0


@pytest.mark.slow
def test_twenty_seconds(tmp_path: Path) -> None:
    """In a process of its own: this one may still be losing what other tests have left."""
    command = [sys.executable, long_run.__file__, "--seconds", "20", "--threads", "1", "--checks", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "o.json")], capture_output=True, text=True)
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["good"] == (done.returncode == 0), done.stderr
    assert found["differ"] == []
    assert found["new_processes"] >= min(2, found["rounds"])  # where a round takes so long, the first is the last
    assert found["flat"]["handles"]
    assert found["flat"]["threads"]
    assert found["growth"]["resident_mib"] < 16  # a few rounds, in which caches still fill


@pytest.mark.slow
def test_other_certificates_of_a_new_process_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_run, "fresh", lambda number, threads: "other")
    found = long_run.long_run(0, threads=1, checks=1)
    assert found["differ"] == ["round 0: new process"]
    assert not found["good"]
