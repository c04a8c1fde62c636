"""Routes: what the estimator's votes suggest, and how routes are written."""

from __future__ import annotations

import numpy as np
import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.routes import checked_route, guess_route


@pytest.mark.parametrize(
    ("votes", "median", "mode"),
    [([5, 3, 2], 0, 0), ([4, 3, 3], 1, 0), ([0, 5, 5], 1, 1), ([0, 4, 6], 2, 2), ([1, 1, 1], 1, 0), ([0, 0, 9], 2, 2)],
)
def test_guess_route(votes: list[int], median: int, mode: int) -> None:
    counts = np.array(votes)
    assert (guess_route(counts, "median"), guess_route(counts, "mode")) == (median, mode)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [(None, "mode"), ("", "mode"), ("median", "median"), ("quantile:0.50", "median"), ("quantile:.7", "quantile:0.7")],
)
def test_canonical_routes(text: str | None, canonical: str) -> None:
    assert checked_route(text, "mode") == canonical
    assert checked_route(canonical, "median") == canonical


@pytest.mark.parametrize("text", ["mean", 3, *(f"quantile:{q}" for q in ("", "x", "0", "1", "nan", "-0.5", "1e-9"))])
def test_unknown_routes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected median, mode or quantile:Q"):
        checked_route(text, "median")
