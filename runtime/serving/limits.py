"""What one request may cost on a server, and how many may be there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dualsmooth.runtime.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What one request may cost. `max_passes`: the most passes that its budget could take, all stages and levels;
    `max_seconds`: from acceptance to answer; `max_image_values`: C*H*W. `max_open` requests are sampled at a time and
    `max_waiting` more may queue. `allow_seed`: whether a client may choose the noise, for replays and tests; its
    certificates say so. Raises `InputError`."""

    max_passes: int = 2_000_000
    max_seconds: float = 300.0
    max_image_values: int = 1 << 22
    max_open: int = 32
    max_waiting: int = 256
    allow_seed: bool = False

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            default = getattr(Limits, name)
            number = isinstance(value, int | float) and type(value) is not bool and 0 < value < float("inf")
            whole = isinstance(value, int) or type(default) is float
            if not (type(value) is bool if type(default) is bool else number and whole):
                what = "True or False" if type(default) is bool else f"a positive {type(default).__name__}"
                raise InputError(f"limit {name} is {value!r:.40}; expected {what}, e.g. {default}")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Limits:
        """From a model configuration's string parameters; absent ones have the defaults. Raises `InputError`."""
        given: dict[str, Any] = {}
        for name, default in cls().__dict__.items():
            if name in parameters and type(default) is bool:
                if parameters[name] not in ("true", "false"):
                    raise InputError(f"config parameter {name} is {parameters[name][:40]!r}; expected true or false")
                given[name] = parameters[name] == "true"
            elif name in parameters:
                try:
                    given[name] = type(default)(parameters[name])
                    if not 0 < given[name] < float("inf"):
                        raise ValueError
                except ValueError:
                    raise InputError(
                        f"config parameter {name} is {parameters[name][:40]!r}; expected a positive "
                        f"{type(default).__name__}, e.g. {default}"
                    ) from None
        return cls(**given)

    def check(self, budget: object, passes: int, values: int) -> None:
        """Raises `InputError` where a request whose budget may take `passes`, for an image of `values` values, costs
        more than one may."""
        if passes > self.max_passes:
            raise InputError(
                f"budget {budget} may take {passes} passes; expected at most {self.max_passes} on this server: ask "
                "for less"
            )
        if values > self.max_image_values:
            raise InputError(
                f"image has {values} values; expected at most {self.max_image_values} on this server: resize it"
            )
