"""Figures as text: what is shown to people says no more than what was proved, whatever the number of digits."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction


def shown(radius: float, digits: int) -> str:
    """A radius in so many decimals, rounded down; `inf` where it is infinite."""
    if math.isinf(radius):
        return "inf"
    return str(Decimal(repr(float(radius))).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def confidence(alpha: float) -> str:
    """1 - alpha, e.g. `0.999`; as a difference where six digits would say more than that."""
    text = f"{1 - alpha:g}"
    return text if Fraction(text) + Fraction(repr(alpha)) <= 1 else f"1 - {alpha!r}"
