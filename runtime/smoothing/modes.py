"""Named modes, for people who do not want to choose a budget. What each takes is measured in docs/modes.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Budget, Fixed


@dataclass(frozen=True)
class Mode:
    """A name for a budget. alpha stays what the caller says, 0.001 unless told otherwise: no mode is less certain."""

    name: str
    meaning: str
    budget: Callable[[float], Budget]
    needs_radius: bool = False


_ALL = (
    Mode("decide", "is it certified at r? Stops as soon as that is settled", AtRadius, needs_radius=True),
    Mode("quick", "a first look: no radius beyond 2.5 sigma", lambda _: Adaptive(1_000, 0.05)),
    Mode("standard", "the paper's 10,000 passes a stage and level", lambda _: Fixed(10_000)),
    Mode("thorough", "large radii and close calls: up to 100,000 passes", lambda _: Adaptive(100_000, 0.01)),
)
MODES = {mode.name: mode for mode in _ALL}
FORMS = one_of([f"{mode.name}{' (with r)' if mode.needs_radius else ''}" for mode in _ALL])


def chosen_budget(budget: Budget | None, mode: str | None, r: float | None) -> Budget | None:
    """The budget of a mode, or the one that was given in its place. Raises `InputError` where both are, where the mode
    is unknown, or where `r` is missing or idle.

    >>> chosen_budget(None, "decide", 0.5)
    AtRadius(r=0.5, max_passes=100000, n0=50)
    """
    if mode is not None and (not isinstance(mode, str) or mode not in MODES):
        raise InputError(f"mode {str(mode)[:40]!r} is unknown; expected {FORMS}")
    if mode is not None and budget is not None:
        raise InputError(f"mode {mode!r} with budget {budget}; a mode is a budget: pass one of them")
    needs = mode is not None and MODES[mode].needs_radius
    if needs != (r is not None):
        fault = (
            f"mode {mode!r} without r; pass the radius to decide at" if needs else f"r is {r!r}, and no mode decides"
        )
        raise InputError(f"{fault}, e.g. mode 'decide' with r 0.5")
    return budget if mode is None else MODES[mode].budget(0.0 if r is None else r)
