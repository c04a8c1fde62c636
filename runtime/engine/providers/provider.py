"""The contract of an execution provider: what ONNX Runtime runs networks on, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from dualsmooth.runtime.errors import DualSmoothError, InputError, ProviderError, one_line

_FLAGS = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


@dataclass(frozen=True)
class Provider:
    """One provider with its options, which are the fields of its class: bool, int or str, each with a default.

    To add one: a file with a subclass, which states the facts below and overrides what differs, and its row in
    `PROVIDERS`. An option that changes the arithmetic must show in `arithmetic`: that is part of the engine's name, and
    so of each certificate.
    """

    name: ClassVar[str]
    """What users and certificates call it."""
    onnxruntime_name: ClassVar[str]
    """What ONNX Runtime calls it."""
    wheel: ClassVar[str]
    """The wheel that has it."""
    extra: ClassVar[str]
    """The extra of this package that installs the wheel, e.g. dualsmooth[gpu]."""
    brings_libraries: ClassVar[bool] = True
    """Whether it has libraries of its own, which `prepare` finds, and a device that a process holds until it ends."""
    survives_fork: ClassVar[bool] = False
    """Whether its sessions can be opened again in a forked child."""
    by_instruction_set: ClassVar[bool] = False
    """Whether its kernels, and so how they round, depend on the CPU's instructions."""
    spare_lanes: ClassVar[int] = 0
    """Lanes besides, where it runs parts on threads of its own: one lane always has the next part."""
    seconds: ClassVar[float] = 300.0
    """How long it may take to open and try one graph."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """From names and values of options; text is read as the type of the option. Raises `InputError`."""
        defaults = {field.name: field.default for field in fields(cls)}
        for name in given:
            if name not in defaults:
                known = f"expected one of {', '.join(defaults)}" if defaults else "it has none"
                raise InputError(f"provider {cls.name} has no option {str(name)[:40]!r}; {known}")
        provider = cls(**{name: _value(name, value, defaults[name]) for name, value in given.items()})
        provider.check()
        return provider

    def check(self) -> None:
        """Raise `InputError` for options that do not fit."""

    def given(self) -> dict[str, Any]:
        """The options that are not the defaults: what `read` makes the same provider of."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    @classmethod
    def prepare(cls, onnxruntime: Any) -> None:
        """Find the libraries that it needs and load them into this process; what is missing, `why_missing` says."""

    @classmethod
    def why_missing(cls) -> str:
        """Why it does not start on this machine, and what to install, in one line; empty where nothing is wrong."""
        return ""

    @property
    def where(self) -> str:
        """What it is called in messages: its name, and the device where one was chosen."""
        device = self.given().get("device")
        return self.name + (f" on device {device}" if device else "")

    def arithmetic(self) -> str:
        """What of the options changes results; empty where there is nothing to choose."""
        return ""

    def session_options(self, *, threads: int, lanes: int, shape: tuple[int, ...]) -> dict[str, str]:
        """ONNX Runtime's options of it, for batches of `shape` [N,C,H,W] and `lanes` callers that share `threads`."""
        return {}

    def entries(self) -> dict[str, str]:
        """Configuration entries of a session."""
        return {"session.disable_cpu_ep_fallback": "1"}  # the CPU must not stand in for it

    def tune(self, settings: Any) -> None:
        """Set what it needs in ONNX Runtime's `SessionOptions`."""
        for name, value in self.entries().items():
            settings.add_session_config_entry(name, value)

    def lanes_and_threads(self, threads: int, values: int) -> tuple[int, int]:
        """How many parts of a batch run side by side, and the threads for all of them together (0: the engine's
        choice), where `threads` were asked for (0: none) and one input has `values` values."""
        return 1, threads

    def keeps_shape(self) -> bool:
        """Whether new batch shapes are slow, so that every batch is filled up to the same size."""
        return False

    def array_module(self) -> Any:
        """The module of the arrays that batches are made in: NumPy, or one like it. Raises `ProviderError`."""
        return np

    def location(self) -> tuple[str, int]:
        """ONNX Runtime's name and number of the device where batches of `array_module` lie."""
        return "cpu", 0

    def not_opened(self, path: Path, precision: str, error: Exception) -> DualSmoothError:
        """What to raise where it does not open the network at `path`, of a bundle in `precision`."""
        reason = self.why_missing() or (
            f"it does not start or cannot run all of {path.name}, and the CPU must not stand in for it "
            f"({one_line(error)}); see `dualsmooth doctor`"
        )
        return ProviderError(f"provider {self.where}: {reason}")


def _value(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        found = _FLAGS.get(str(value).lower())
        if found is None:
            raise InputError(f"option {name} is {str(value)[:40]!r}; expected on or off")
        return found
    if isinstance(default, int):
        if isinstance(value, bool) or not str(value).isdecimal():
            raise InputError(f"option {name} is {str(value)[:40]!r}; expected an integer from 0")
        return int(value)
    return str(value)
