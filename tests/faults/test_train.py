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
from dualsmooth.training.record import RECORD, load_run

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
    try:
        load_run(folder / "run")
    except ds.InputError as error:
        assert "is not finished" in str(error) or "is not a run directory" in str(error), error
        return False
    assert results(folder / "run") == results(whole / "run")
    assert (folder / "run" / "config.toml").read_bytes() == (whole / "run" / "config.toml").read_bytes()
    return True


def test_train(data: Path, tmp_path: Path) -> None:
    command = ["train", "--dataset", "npz:d.npz", "--out", "run", "--threads", "1"]
    command += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    strides = dict.fromkeys(KINDS, 13) | {"kill": 1, "full": 5}
    trace, whole, outcomes = enumerate_faults(
        command, data, tmp_path / "w", strides=strides, setup="faults.memory:remember_onnx"
    )
    check_all(trace, whole, outcomes, check)
