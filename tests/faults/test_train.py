"""Training is struck at every file-system operation: a run is finished or it is not, and ends the same either way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from faults.injector import KINDS
from faults.nursery import enumerate_faults
from faults.test_commands import check_all

import dualsmooth as ds
from dualsmooth.training.run.record import RECORD, load_run, read_record

pytestmark = pytest.mark.slow
SMALL = {
    "sigmas": "[0.25, 0.5]", "sigma_e": 0.5, "seed": 7, "validation": 10,
    "classifier.width": 0.125, "classifier.epochs": 2, "classifier.batch_size": 16,
    "labels.images": 16, "labels.votes": 8, "labels.shard": 8,
    "estimator.width": 0.125, "estimator.epochs": 1, "estimator.batch_size": 8,
    "metrics.images": 4, "metrics.votes": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 60, (40, 8, 8), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 3] += 180
    np.savez(folder / "d.npz", x=images, y=labels)
    return folder


def results(run: Path) -> dict[str, object]:
    """What a run came to, less times and versions."""
    record = json.loads((run / RECORD).read_text())
    votes = {p.name: np.load(p).tolist() for p in sorted((run / "labels").glob("*.npy"))}
    history = (run / "history.jsonl").read_text()
    return {"checkpoints": record["checkpoints"], "metrics": record["metrics"], "votes": votes, "history": history}


def check(folder: Path, whole: Path) -> bool:
    record = read_record(folder / "run")
    if record is None or not record["finished"]:
        with pytest.raises(ds.InputError, match=r"is not finished|is not a run directory"):
            load_run(folder / "run")
        return False
    load_run(folder / "run")
    assert results(folder / "run") == results(whole / "run")
    assert (folder / "run" / "config.toml").read_bytes() == (whole / "run" / "config.toml").read_bytes()
    return True


COMMAND = ["train", "--dataset", "npz:d.npz", "--out", "run", "--threads", "1"]
COMMAND += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
REMEMBER = "faults.memory:remember_onnx"


def test_train(data: Path, tmp_path: Path) -> None:
    strides = dict.fromkeys(KINDS, 23) | {"kill": 1, "full": 11}
    check_all(*enumerate_faults(COMMAND, data, tmp_path / "w", strides=strides, setup=REMEMBER), check)


def test_a_run_that_takes_over_another_accounts_for_it_also_after_a_kill(data: Path, tmp_path: Path) -> None:
    """It goes on without --from; what it did not train is in its record all the same."""
    _, first, _ = enumerate_faults(COMMAND, data, tmp_path / "first", strides={}, setup=REMEMBER)
    (first / "run").rename(first / "earlier")
    command = [*COMMAND, "--from", "earlier", "--set", "estimator.temperature=0.2"]
    again = ["train", "--out", "run", "--threads", "1"]
    trace, whole, outcomes = enumerate_faults(
        command, first, tmp_path / "w", strides={"kill": 13}, setup=REMEMBER, again=again
    )
    wanted = read_record(whole / "run")["borrowed"]
    assert wanted["files"].keys() == {"classifier.pt", "labels/*.npy"}
    recorded = next(at for at, (op, path) in enumerate(trace) if op == "rename" and path.endswith("run.json"))
    for outcome in outcomes:
        if outcome.at > recorded + 1:
            assert outcome.again == 0, outcome.again_stderr
            assert read_record(outcome.final / "run")["borrowed"] == wanted, str(outcome)
            assert "copying" not in read_record(outcome.final / "run")
            assert check(outcome.final, whole)
        else:
            assert not (outcome.after / "run" / "classifier.pt").exists(), str(outcome)
