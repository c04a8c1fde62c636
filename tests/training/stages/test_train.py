from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config, load_run, train
from dualsmooth.training.config import EstimatorConfig
from dualsmooth.training.data import load_training_data
from dualsmooth.training.run.record import locked
from dualsmooth.training.stages.classifier import train_classifier
from dualsmooth.training.stages.train import saved_config

Weights = dict[str, torch.Tensor]


def weights(path: Path) -> tuple[Weights, Weights]:
    run = load_run(path)
    return run.classifiers[0].state_dict(), run.estimator.state_dict()


def assert_same_result(a: Path, b: Path) -> None:
    for left, right in zip(weights(a), weights(b), strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert (a / "metrics.json").read_text() == (b / "metrics.json").read_text()


def test_a_run_records_what_export_needs(tiny: Config, finished: Path) -> None:
    run = load_run(finished)
    assert (run.sigmas, run.sigma_e, run.input_shape) == (tiny.sigmas, tiny.sigma_e, (1, 8, 8))
    assert run.classes == ("left", "middle", "right")
    assert run.classifiers[0] is run.classifiers[1]
    assert not run.estimator.training
    session = run.record["sessions"][0]
    assert set(session["seconds"]) == {"classifier", "labels", "estimator", "metrics"}
    assert saved_config(finished) == tiny


def test_metrics_are_complete_and_plausible(tiny: Config, finished: Path) -> None:
    metrics: dict[str, Any] = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["noisy_accuracy"]) == {"0.25", "0.5"}
    assert sum(metrics["routes"]["median"]) == pytest.approx(1)
    for curve in metrics["certified_accuracy"].values():
        assert curve == sorted(curve, reverse=True)


def test_a_finished_run_is_left_alone(tiny: Config, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "run.json").read_bytes()
    train(tiny, finished, threads=1)
    assert "is finished" in capsys.readouterr().out
    assert (finished / "run.json").read_bytes() == before


def test_another_configuration_is_refused(tiny: Config, finished: Path) -> None:
    with pytest.raises(InputError, match="seed = 7 against seed = 8"):
        train(dataclasses.replace(tiny, seed=8), finished)


def test_a_directory_with_other_files_is_refused(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        train(tiny, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]
    with pytest.raises(InputError, match="cannot use"):
        train(tiny, tmp_path / "letters.txt")


def test_a_run_killed_before_its_first_file_goes_on_but_never_in_two_processes(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / ".config.toml.x1").write_text("data")
    with locked(tmp_path), pytest.raises(InputError, match="another process trains"):
        train(tiny, tmp_path)
    assert saved_config(tmp_path) is None  # that is for the process that holds the lock to write


def test_a_start_that_fails_leaves_nothing_that_refuses_the_corrected_command(tiny: Config, tmp_path: Path) -> None:
    """Whatever is wrong: found before the first file, or only when a stage needs it."""
    (tmp_path / "no.onnx").write_bytes(b"no network")
    (tmp_path / "empty").mkdir()
    for wrong in (
        {"dataset": "npz:nowhere.npz"},
        {"validation": 179},
        {"labels": dataclasses.replace(tiny.labels, images=19_000)},
        {"classifier": dataclasses.replace(tiny.classifier, model="resnet21"), "estimator": _unlike(tiny, "small-cnn")},
        {"estimator": _unlike(tiny, "resnet21")},
        {"classifier": dataclasses.replace(tiny.classifier, pretrained="nowhere.pth")},
        {"experts": (f"0.25={tmp_path / 'no.onnx'}",)},
        {"experts": ("0.25=nowhere.onnx",)},
        {"classes": ("left", "right")},
    ):
        for out in (tmp_path / "run", tmp_path / "empty"):
            with pytest.raises(InputError):
                train(dataclasses.replace(tiny, **wrong), out, threads=1)
        assert not (tmp_path / "run").exists(), wrong
        assert {path.name for path in (tmp_path / "empty").iterdir()} <= {".lock"}, wrong
    with pytest.raises(InputError, match="is not a run directory"):
        train(tiny, tmp_path / "run", threads=1, reuse=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def _unlike(tiny: Config, model: str) -> EstimatorConfig:
    return dataclasses.replace(tiny.estimator, model=model, width=1.0, from_classifier=False)


def test_a_start_that_was_stopped_gives_way_to_a_corrected_command(tiny: Config, tmp_path: Path) -> None:
    saved = tmp_path / "config.toml"
    saved.write_text(dataclasses.replace(tiny, seed=8).to_toml())
    (tmp_path / "classifier.pt").write_bytes(b"an epoch")
    with pytest.raises(InputError, match="another configuration"):
        train(tiny, tmp_path)
    (tmp_path / "classifier.pt").unlink()
    with pytest.raises(InputError, match="nowhere is not a run directory"):
        train(tiny, tmp_path, threads=1, reuse=tmp_path / "nowhere")
    assert not saved.exists()


def test_a_data_set_whose_classes_changed_is_not_gone_on_with(tiny: Config, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record |= {"finished": False, "classes": ["left", "right", "middle"]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="has other classes than when"):
        train(tiny, tmp_path / "run", threads=1)


def test_bad_devices_are_refused(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'tpu' is unknown"):
        train(tiny, tmp_path / "run", device="tpu")


def _start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from dualsmooth.training import config_from, read_toml, train;"
        "train(config_from(read_toml(sys.argv[1]), 'test'), sys.argv[2], threads=1)"
    )
    command = [sys.executable, "-c", code, str(config), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_when(out: Path, pattern: str, config: Path) -> None:
    process = _start(config, out)
    deadline = time.monotonic() + 120
    while not list(out.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_kill_9_and_resume_gives_identical_weights(tiny: Config, finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(tiny.to_toml())
    _kill_when(tmp_path / "run", "classifier.pt", config)
    with pytest.raises(InputError, match="is not finished"):
        load_run(tmp_path / "run")
    resumed = train_classifier(
        tmp_path / "run" / "classifier.pt", load_training_data(tiny), tiny, levels=tiny.sigmas
    ).state_dict()
    whole = weights(finished)[0]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["run.json", "classifier.pt", "labels/*.npy", "estimator.pt"])
def test_a_run_killed_in_any_stage_ends_as_if_it_was_not(
    pattern: str, tiny: Config, finished: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(tiny.to_toml())
    _kill_when(tmp_path / "run", pattern, config)
    train(tiny, tmp_path / "run", threads=1)
    assert_same_result(tmp_path / "run", finished)
    assert len(load_run(tmp_path / "run").record["sessions"]) == 2
