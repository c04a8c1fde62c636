"""Training (needs torch): makes the two networks of dual randomized smoothing, into a run directory.

`train(Config(dataset="fashion-mnist"), "run/")` runs all stages; `load_run("run/")` reads the networks back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualsmooth.training.config import (
    ClassifierConfig,
    Config,
    EstimatorConfig,
    LabelConfig,
    MetricsConfig,
    config_from,
    read_toml,
)

if TYPE_CHECKING:
    from dualsmooth.training.run.record import Run, load_run
    from dualsmooth.training.stages.train import train

__all__ = [
    "ClassifierConfig",
    "Config",
    "EstimatorConfig",
    "LabelConfig",
    "MetricsConfig",
    "Run",
    "config_from",
    "load_run",
    "read_toml",
    "train",
]

_HOME = {"train": "stages.train", "Run": "run.record", "load_run": "run.record"}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that the command line lists `train` without it."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"dualsmooth.training.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
