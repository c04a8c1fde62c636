"""Routes: how the estimator's votes choose a level. The median needs the levels' order, the mode does not."""

from __future__ import annotations

import math

import numpy as np

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.votes import Counts

MEDIAN, MODE, QUANTILE = "median", "mode", "quantile:"
NONE = "none"
"""The route where there is one level and no router."""
FORMS = "median, mode or quantile:Q with Q from 0.001 to 0.999"
"""How routes are written."""


def quantile_of(route_kind: str) -> float:
    """1/2 for `median`, q for `quantile:q`: the route is the smallest k with F_k >= q. Raises `InputError`.

    >>> quantile_of("median"), quantile_of("quantile:0.7")
    (0.5, 0.7)
    """
    if route_kind == MEDIAN:
        return 0.5
    try:
        q = float(route_kind.removeprefix(QUANTILE)) if route_kind.startswith(QUANTILE) else math.nan
    except ValueError:
        q = math.nan
    if not 0.001 <= q <= 0.999:
        raise InputError(f"route {route_kind[:40]!r} is unknown; expected {FORMS}")
    return q


def guess_route(counts: Counts, route_kind: str) -> int:
    """The route that selection votes [K] suggest: their median, q-quantile or mode.

    >>> votes = np.array([40, 15, 45])
    >>> guess_route(votes, "median"), guess_route(votes, "mode"), guess_route(votes, "quantile:0.3")
    (1, 2, 0)
    """
    if route_kind == MODE:
        return int(np.argmax(counts))
    return int(np.argmax(np.cumsum(counts) >= quantile_of(route_kind) * counts.sum()))


def checked_route(route: str | None, default: str) -> str:
    """The route in its canonical form; `default` where none is given. Raises `InputError`."""
    if route is not None and not isinstance(route, str):
        raise InputError(f"route {str(route)[:40]!r} is unknown; expected {FORMS}")
    route = route or default
    if route == MODE:
        return route
    q = quantile_of(route)
    return MEDIAN if q == 0.5 else f"{QUANTILE}{q!r}"
