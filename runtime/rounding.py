"""Figures rounded so that they say no more than what was proved, as numbers and as text."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction

from dualsmooth.runtime.errors import InputError

RADIUS_STEP = 1e-6
"""Radii are multiples of this, rounded down."""


def round_down(radius: float) -> float:
    """The largest multiple of `RADIUS_STEP` that is safely not above `radius` (a relative 1e-9 is given up first).

    The allowance is larger than the error of the quantile functions, so a printed radius never exceeds the exact one.

    >>> round_down(0.7500279)
    0.750027
    """
    if not math.isfinite(radius):
        raise InputError(f"radius is {radius}; expected a finite number")
    return max(0.0, math.floor(radius * (1 - 1e-9) * 1e6) / 1e6)


def stated(radius: float) -> float:
    """A radius as certificates state it: rounded down, or infinite."""
    return radius if math.isinf(radius) else round_down(radius)


def shown(radius: float, digits: int) -> str:
    """A radius in so many decimals, rounded down; `inf` where it is infinite.

    >>> shown(0.99999, 3)
    '0.999'
    """
    if math.isinf(radius):
        return "inf"
    return str(Decimal(repr(float(radius))).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def confidence(alpha: float) -> str:
    """1 - alpha, e.g. `0.999`; as a difference where six digits would say more than that.

    >>> confidence(0.001), confidence(1.5e-7)
    ('0.999', '1 - 1.5e-07')
    """
    text = f"{1 - alpha:g}"
    return text if Fraction(text) + Fraction(repr(alpha)) <= 1 else f"1 - {alpha!r}"
