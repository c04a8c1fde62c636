"""Radii in other norms: inside the L2 ball, touching it, rounded down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.norms import NORMS, norm_named

ORDERS = {"l2": 2, "l1": 1, "linf": np.inf}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("values", [1, 784, 3072, 150_528])
def test_its_ball_lies_in_the_l2_ball_and_touches_it(name: str, values: int) -> None:
    r, l2 = norm_named(name).radius(1.5, values), 1.5
    farthest = np.full(values, r) if name == "linf" else np.eye(1, values)[0] * r
    assert np.linalg.norm(farthest, ORDERS[name]) == pytest.approx(r)
    assert l2 - 1.1e-6 * math.sqrt(values) - 1e-8 <= np.linalg.norm(farthest) <= l2
    rng = np.random.default_rng(values)
    for change in rng.standard_cauchy((20, values)):
        assert np.linalg.norm(change * (r / np.linalg.norm(change, ORDERS[name]))) <= l2 * (1 + 1e-12)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="needs the shape"):
        norm_named("linf").radius(1.0, None)
    with pytest.raises(InputError, match="expected l2, l1 or linf"):
        norm_named("l3")
