"""A folder with what the commands need: a toy bundle, a data set, two shards of results, and old outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    toys.write_bundle(
        folder / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 2), np.uint8)
    np.savez(folder / "d.npz", x=x, y=(x[:, 0, 0] > 90).astype(np.int64))
    dataset = load_dataset(f"npz:{folder / 'd.npz'}")
    for part in range(2):
        smoother = ds.load(folder / "bundle", threads=1)
        indices = range(part, 8, 2)
        evaluate(smoother, dataset, folder / f"{part}.jsonl", indices=indices, budget=ds.Fixed(200), seed=5)
    for name in ("merged.jsonl", "r.html", "r.csv", "r.svg"):
        (folder / name).write_text("old\n")
    return folder
