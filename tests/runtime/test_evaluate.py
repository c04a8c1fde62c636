"""Evaluations append, resume after a kill with the same rows, and never mix configurations."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.datasets import load_dataset
from dualsmooth.runtime.evaluate import evaluate
from dualsmooth.runtime.results import read_results


@pytest.fixture
def setting(tmp_path: Path):
    bundle = toys.write_bundle(
        tmp_path / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 2), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 0, 0] > 90).astype(np.int64))
    return bundle, tmp_path / "d.npz"


def run(setting, out: Path, **options):
    bundle, data = setting
    options = {"budget": ds.Fixed(200), "seed": 7, "indices": range(10)} | options
    return evaluate(ds.load(bundle), load_dataset(f"npz:{data}"), out, **options)


def rows(path: Path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def test_resume_adds_only_what_is_missing(setting, tmp_path) -> None:
    run(setting, tmp_path / "whole.jsonl")
    run(setting, tmp_path / "parts.jsonl", indices=range(4))
    run(setting, tmp_path / "parts.jsonl")
    assert rows(tmp_path / "parts.jsonl") == rows(tmp_path / "whole.jsonl")


def test_a_torn_last_line_is_repaired(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out)
    whole = rows(out)
    out.write_bytes(out.read_bytes()[:-25])
    assert run(setting, out).repaired
    assert rows(out) == whole


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"budget": ds.Fixed(300)}, "budget"),
        ({"alpha": 0.01}, "alpha"),
        ({"rule": "paper"}, "rule"),
        ({"route": "mode"}, "route"),
        ({"seed": 8}, "seed"),
    ],
)
def test_two_configurations_are_not_mixed(setting, tmp_path, options, name) -> None:
    run(setting, tmp_path / "o.jsonl", indices=range(2))
    with pytest.raises(ds.InputError, match=f"holds results with {name}"):
        run(setting, tmp_path / "o.jsonl", **options)


def test_reading_recomputes_and_refuses_an_altered_row(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out)
    assert [r.index for r in read_results(out)] == list(range(10))
    changed = json.loads(out.read_text().splitlines()[0])
    changed["certificate"]["radius"] = 9.0
    out.write_text(json.dumps(changed) + "\n")
    with pytest.raises(ds.InputError, match="line 1: radius is stated as"):
        read_results(out)


def test_kill_9_loses_and_doubles_nothing(setting, tmp_path) -> None:
    bundle, data = setting
    options = ["--dataset", f"npz:{data}", "--budget", "fixed:20000", "--seed", "3"]
    command = [sys.executable, "-m", "dualsmooth", "evaluate", str(bundle), *options]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    for lines in (2, 11, 25):
        process = subprocess.Popen([*command, "--out", str(killed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and (not killed.exists() or killed.read_bytes().count(b"\n") < lines):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run([*command, "--out", str(killed)], check=True, capture_output=True)
    assert rows(killed) == rows(whole)
