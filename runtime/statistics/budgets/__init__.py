"""Budgets: how many passes to spend, and when to stop. One file a budget (or family), and this table."""

from __future__ import annotations

from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.statistics.budgets.adaptive import Adaptive
from dualsmooth.runtime.statistics.budgets.budget import MAX_PASSES, Budget, geometric_looks, whole
from dualsmooth.runtime.statistics.budgets.decisions import AtRadii, AtRadius
from dualsmooth.runtime.statistics.budgets.fixed import Fixed

BUDGETS: dict[str, type[Budget]] = {budget.kind: budget for budget in (Fixed, Adaptive, AtRadius, AtRadii)}


FORMS = one_of([budget.form for budget in BUDGETS.values()])
"""How budgets are written; `:n0` may follow each."""
CALLS = one_of([budget.call for budget in BUDGETS.values()])
"""How budgets are made in Python."""


def parse_budget(text: str) -> Budget:
    """The budget that a text names (`FORMS`), e.g. `fixed:10000`, `adaptive:100000:0.05`. Raises `InputError`.

    >>> parse_budget("adaptive:1e5:0.05")
    Adaptive(max_passes=100000, tolerance=0.05, n0=100)
    >>> str(AtRadius(0.5))
    'at-radius:0.5:100000'
    """
    kind, *values = text.split(":")
    try:
        made = BUDGETS[kind].parsed(values) if kind in BUDGETS else None
    except InputError:
        raise
    except ValueError:
        made = None
    if made is None:
        raise InputError(f"budget {text[:60]!r}; expected {FORMS}, e.g. {Fixed.example}")
    return made


__all__ = [
    "BUDGETS",
    "CALLS",
    "FORMS",
    "MAX_PASSES",
    "Adaptive",
    "AtRadii",
    "AtRadius",
    "Budget",
    "Fixed",
    "geometric_looks",
    "parse_budget",
    "whole",
]
