"""The configuration of a run: what it is made of, and its way from TOML and back. Needs no torch."""

from dualsmooth.training.config.config import Config, config_from, difference
from dualsmooth.training.config.fit import fitted
from dualsmooth.training.config.sections import (
    ClassifierConfig,
    EstimatorConfig,
    FinetuneConfig,
    LabelConfig,
    MetricsConfig,
)
from dualsmooth.training.config.toml import read_toml

__all__ = [
    "ClassifierConfig",
    "Config",
    "EstimatorConfig",
    "FinetuneConfig",
    "LabelConfig",
    "MetricsConfig",
    "config_from",
    "difference",
    "fitted",
    "read_toml",
]
