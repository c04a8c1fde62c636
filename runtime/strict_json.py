"""JSON that all readers understand alike: no key twice, no NaN or infinity, no bottomless nesting."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError`, with a reason of one line."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers disagree about a key that occurs twice, so there is none."""
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key occurs twice")
    return out


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is beyond all floating-point numbers")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
