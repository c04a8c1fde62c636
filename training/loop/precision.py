"""In which precision a CPU trains fastest: detected, not asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dualsmooth.runtime.engine.instruction_set import flags
from dualsmooth.training.config import Config
from dualsmooth.training.config.sections import AUTO, BF16, OFF

FAST = ("amx_bf16", "avx512_bf16")
"""The instructions with which bfloat16 is faster than float32 (docs/training-costs.md); without, it is far slower."""


def autocast_for(wanted: str, device: str) -> str:
    """`bf16` or `off`: what was `wanted`, or for `auto` what is faster on this processor. Other devices than CPUs are
    left as they are."""
    if wanted != AUTO:
        return wanted
    return BF16 if device == "cpu" and flags() & set(FAST) else OFF


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
    if device != "cpu":
        return f"the device is {device}"
    found = [name for name in FAST if name in flags()]
    return f"the processor has {found[0]}" if found else f"the processor has neither {' nor '.join(FAST)}"
