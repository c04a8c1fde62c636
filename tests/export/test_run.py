from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dualsmooth.export import export_run
from dualsmooth.export.commands import add_arguments, run
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.errors import InputError
from dualsmooth.training import load_run
from dualsmooth.training.run.record import write_json


@pytest.fixture
def trained(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_the_bundle_runs_and_says_how_it_was_made(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [str(trained), "--out", str(tmp_path / "bundle")]
    monkeypatch.setattr("sys.argv", ["dualsmooth", "export", *typed])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(typed)
    assert run(arguments) == 0
    assert "parity with PyTorch" in capsys.readouterr().out
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.provenance["seed"] == 7
    assert bundle.provenance["training"][0]["command"] == "dualsmooth train"
    assert bundle.provenance["export"]["command"] == shlex.join(["dualsmooth", "export", *typed])
    assert bundle.provenance["config"]["sigmas"] == [0.25, 0.5]
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8), np.float32)
    votes = OnnxEngine(bundle).votes(bundle.classifiers[0], x, 0.25, 3)
    with torch.no_grad():
        expected = load_run(trained).classifiers[0](torch.from_numpy(x)).argmax(1).numpy()
    np.testing.assert_array_equal(votes, expected)
    with pytest.raises(InputError, match="is not an empty directory"):
        run(arguments)


def test_a_run_on_photos_makes_a_bundle_for_photos(trained: Path, tmp_path: Path) -> None:
    """As `train` records it of data sets that it resizes itself."""
    record = json.loads((trained / "run.json").read_text())
    write_json(trained / "run.json", {**record, "resize": 10})
    made = export_run(trained, tmp_path / "bundle").preprocessing
    assert made is not None
    assert (made.resize, made.resampling) == (10, "bilinear")
    other = export_run(trained, tmp_path / "other", resize=(9, 12), resampling="box").preprocessing
    assert other is not None
    assert (other.resize, other.resampling) == ((9, 12), "box")
    write_json(trained / "run.json", {**record, "resize": "much"})
    refused(trained, "resize")


def refused(run: Path, message: str) -> None:
    out = run.parent / "refused"
    with pytest.raises(InputError, match=message) as caught:
        export_run(run, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_missing_unfinished_and_foreign_runs_are_refused(trained: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not a run directory")
    record = json.loads((trained / "run.json").read_text())
    for changes, message in (
        ({"finished": False}, "is not finished"),
        ({"version": 2}, "record of version 1"),
        ({"sigmas": [0.25]}, "is damaged"),
        ({"classes": 3}, "is damaged"),
        ({"estimator": "../estimator.pt"}, "is damaged"),
    ):
        write_json(trained / "run.json", {**record, **changes})
        refused(trained, message)
    (trained / "run.json").write_text("{")
    refused(trained, "cannot read")


def test_damaged_and_swapped_checkpoints_are_refused(trained: Path) -> None:
    whole = (trained / "estimator.pt").read_bytes()
    (trained / "estimator.pt").write_bytes(whole[:-100])
    refused(trained, "is damaged")
    shutil.copy(trained / "classifier.pt", trained / "estimator.pt")
    refused(trained, "is not the network that the run finished with")
    (trained / "estimator.pt").unlink()
    refused(trained, "no checkpoint")


def test_the_record_names_the_commit_of_the_code() -> None:
    from dualsmooth.training.run.record import code_version

    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    version = code_version()
    if head.returncode == 0 and version:
        assert version["commit"] == head.stdout.strip()
        assert isinstance(version["dirty"], bool)
