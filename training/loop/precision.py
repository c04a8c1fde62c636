"""In which precision a CPU trains fastest: detected, not asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dualsmooth.runtime.engine.instruction_set import has_fast_bf16, why_bf16
from dualsmooth.training.config import Config
from dualsmooth.training.config.sections import AUTO, BF16, OFF


def autocast_for(wanted: str, device: str) -> str:
    """`bf16` or `off`: what was `wanted`, or for `auto` what is faster on this processor. Other devices than CPUs are
    left as they are."""
    if wanted != AUTO:
        return wanted
    return BF16 if device == "cpu" and has_fast_bf16() else OFF


def settled(config: Config, began: Config | None, device: str, say: Callable[[str], None]) -> Config:
    """`config` with `auto` decided for each network: as the run that `began` has it, else as this machine is faster."""
    for name in ("classifier", "estimator"):
        stage = getattr(config, name)
        if stage.autocast != AUTO:
            continue
        chosen = autocast_for(AUTO if began is None else getattr(began, name).autocast, device)
        config = dataclasses.replace(config, **{name: dataclasses.replace(stage, autocast=chosen)})
        if began is None:
            say(f"{name}: trained in {'bfloat16' if chosen == BF16 else 'float32'}, since {_reason(device)}")
    return config


def _reason(device: str) -> str:
    return why_bf16() if device == "cpu" else f"the device is {device}"
