"""Prediction without a radius (Cohen et al. 2019, PREDICT; DESIGN 3.5), for both stages."""

from __future__ import annotations

import numpy as np
from scipy import stats

from dualsmooth.runtime.certification import Requests
from dualsmooth.runtime.votes import CLASSIFIER, ESTIMATOR, Counts, Request, Stream, Tally

PREDICTION = "prediction"


def prediction(tally: Tally, *, levels: int, alpha: float, n: int, interval: bool) -> Requests:
    """Ask for n votes of the estimator, then n of the classifier at every level that the router cannot exclude."""
    if levels > 1:
        yield [Request(Stream(ESTIMATOR, 0, PREDICTION), n)]
    kept = candidates(tally, levels=levels, alpha=alpha, interval=interval)
    yield [Request(Stream(CLASSIFIER, level, PREDICTION), n) for level in kept]


def candidates(tally: Tally, *, levels: int, alpha: float, interval: bool) -> list[int]:
    """With probability at least 1 - alpha/2 the route is among the returned levels; empty on abstention.

    `interval`: the median route; each F_j is compared with 1/2 by a two-sided exact binomial test at alpha/2/(K-1).
    Otherwise the mode route: the top two levels are compared (Hung & Fithian 2019), and a tie abstains.
    """
    if levels == 1:
        return [0]
    counts = tally.counts(Stream(ESTIMATOR, 0, PREDICTION))
    if not interval:
        top = _top(counts, alpha / 2)
        return [] if top is None else [top]
    n, share = int(counts.sum()), alpha / 2 / (levels - 1)
    low, high = 0, levels - 1
    for j, hits in enumerate(np.cumsum(counts)[:-1]):
        if stats.binomtest(int(hits), n, 0.5).pvalue <= share:
            low, high = (max(low, j + 1), high) if 2 * hits < n else (low, min(high, j))
    return list(range(low, high + 1))


def predicted(tally: Tally, *, levels: int, alpha: float, interval: bool) -> tuple[int | None, list[int]]:
    """With probability at least 1 - alpha, the label is the dual classifier's at the input, or None.

    All levels that remain must agree, each at alpha/2: an agreed label is wrong only if the test at the true route is,
    which is one level, fixed before any vote. Also returns those levels.
    """
    kept = candidates(tally, levels=levels, alpha=alpha, interval=interval)
    share = alpha / 2 if levels > 1 else alpha
    labels = {_top(tally.counts(Stream(CLASSIFIER, level, PREDICTION)), share) for level in kept}
    return (labels.pop() if len(labels) == 1 else None), kept


def _top(counts: Counts, alpha: float) -> int | None:
    """With probability at least 1 - alpha the returned class is the most probable one, or None."""
    order = np.argsort(counts, kind="stable")[::-1]
    first, second = int(counts[order[0]]), int(counts[order[1]])
    return int(order[0]) if stats.binomtest(first, first + second, 0.5).pvalue <= alpha else None
