"""A tiny data set and runs on it: 8x8 images of 3 classes, each a bright stripe at its own place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualsmooth.training import Config, config_from, train


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    labels = np.arange(180) % 3
    images = generator.integers(0, 60, (180, 8, 8), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 180
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, x=images, y=labels, classes=np.array(["left", "middle", "right"]))
    return path


def tiny_values(npz: Path) -> dict[str, Any]:
    return {
        "dataset": f"npz:{npz}",
        "sigmas": [0.25, 0.5],
        "sigma_e": 0.5,
        "seed": 7,
        "validation": 20,
        "classifier": {"width": 0.25, "epochs": 3, "batch_size": 32, "autocast": "off"},
        "labels": {"images": 50, "votes": 20, "shard": 20},
        "estimator": {"width": 0.25, "epochs": 2, "batch_size": 16, "autocast": "off"},
        "metrics": {"images": 5, "votes": 20},
    }


@pytest.fixture(scope="session")
def tiny(tiny_npz: Path) -> Config:
    return config_from(tiny_values(tiny_npz), "test")


@pytest.fixture(scope="session")
def finished(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, never interrupted."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny, path, threads=1)
    return path


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The networks here are too small to share among threads."""
    torch.set_num_threads(1)
