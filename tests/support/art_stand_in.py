"""What docs/from-art.md imports of IBM's Adversarial Robustness Toolbox, for environments without it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

HOME = "art.estimators.certification.randomized_smoothing"


class PyTorchRandomizedSmoothing:
    """The parameters and attributes of ART 1.20.1's class of this name; it computes nothing."""

    def __init__(
        self,
        model: Any,
        loss: Any,
        input_shape: tuple[int, ...],
        nb_classes: int,
        optimizer: Any = None,
        channels_first: bool = True,
        clip_values: Any = None,
        preprocessing_defences: Any = None,
        postprocessing_defences: Any = None,
        preprocessing: Any = (0.0, 1.0),
        device_type: str = "gpu",
        sample_size: int = 32,
        scale: float = 0.1,
        alpha: float = 0.001,
    ) -> None:
        given = dict(locals())
        del given["self"]
        vars(self).update(given)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `art` be imported, where it is not installed."""
    if find_spec("art") is not None:
        return
    parts = HOME.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules[HOME])["PyTorchRandomizedSmoothing"] = PyTorchRandomizedSmoothing
