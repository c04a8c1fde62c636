"""Prediction without a radius (Cohen et al. 2019, PREDICT; docs/mathematics.md, theorem 6), for both stages."""

from __future__ import annotations

import numpy as np

from dualsmooth.runtime.statistics.binomial import at_least, at_most
from dualsmooth.runtime.statistics.routes import MODE, quantile_of
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATOR,
    PREDICTION,
    Counts,
    Request,
    Requests,
    Stream,
    Tally,
)


def prediction(tally: Tally, *, levels: int, alpha: float, n: int, route: str) -> Requests:
    """Ask for n votes of the estimator, then n of the classifier at every level that the router cannot exclude."""
    if levels > 1:
        yield [Request(Stream(ESTIMATOR, 0, PREDICTION), n)]
    kept = candidates(tally, levels=levels, alpha=alpha, route=route)
    yield [Request(Stream(CLASSIFIER, level, PREDICTION), n) for level in kept]


def candidates(tally: Tally, *, levels: int, alpha: float, route: str) -> list[int]:
    """With probability at least 1 - alpha/2 the route is among the returned levels; empty on abstention.

    `median` or `quantile:q`: each F_j is compared with q by two exact one-sided binomial tests at alpha/4 each. They
    are nested: the true route k is dropped only if the test that F_k < q or the one that F_(k-1) >= q errs, whatever
    the others say, so nothing is divided by K - 1. `mode`: the top two levels are compared (Hung & Fithian 2019), and a
    tie abstains.
    """
    if levels == 1:
        return [0]
    counts = tally.counts(Stream(ESTIMATOR, 0, PREDICTION))
    if route == MODE:
        top = _top(counts, alpha / 2)
        return [] if top is None else [top]
    n, q, share = int(counts.sum()), quantile_of(route), alpha / 4
    heads = np.cumsum(counts)[:-1]
    below = at_most(heads, n, q) <= share  # F_j < q: the route is above j
    above = at_least(heads, n, q) <= share  # F_j >= q: the route is at most j
    return list(range(int(below.sum()), levels - int(above.sum())))


def predicted(tally: Tally, *, levels: int, alpha: float, route: str) -> tuple[int | None, list[int]]:
    """With probability at least 1 - alpha, the label is the dual classifier's at the input, or None.

    All levels that remain must agree, each at alpha/2: an agreed label is wrong only if the test at the true route is,
    which is one level, fixed before any vote. Also returns those levels.
    """
    kept = candidates(tally, levels=levels, alpha=alpha, route=route)
    share = alpha / 2 if levels > 1 else alpha
    labels = {_top(tally.counts(Stream(CLASSIFIER, level, PREDICTION)), share) for level in kept}
    return (labels.pop() if len(labels) == 1 else None), kept


def _top(counts: Counts, alpha: float) -> int | None:
    """With probability at least 1 - alpha the returned class is the most probable one, or None."""
    order = np.argsort(counts, kind="stable")[::-1]
    first, second = int(counts[order[0]]), int(counts[order[1]])
    return int(order[0]) if 2 * at_least(first, first + second, 0.5) <= alpha else None
