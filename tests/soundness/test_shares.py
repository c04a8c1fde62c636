"""Where alpha goes: exact errors of the radius over all votes, at worst cases and at random ones."""

from __future__ import annotations

import numpy as np
import pytest
from exact_shares import ALPHA, PLANNERS, World, all_of_alpha_for_each_claim, as_it_is, error, union_bound, worst

WAYS = [("interval", "median"), ("interval", "mode"), ("paper", "median"), ("paper", "mode")]


@pytest.mark.parametrize(("rule", "kind"), WAYS)
@pytest.mark.parametrize("count", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_each_level_may_spend_all_of_alpha(rule: str, kind: str, count: int) -> None:
    """Sound, and tight: the worst case uses most of alpha, where the union bound leaves half of it."""
    assert 0.09 < worst(as_it_is, count, rule, kind) <= ALPHA
    if count > 1:
        assert worst(union_bound, count, rule, kind) < 0.06


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_alpha_for_each_claim_of_a_level_is_too_much(count: int) -> None:
    """A level's exclusion and its label can both be false; the enumeration sees it."""
    assert worst(all_of_alpha_for_each_claim, count, "interval", "median") > 1.5 * ALPHA


def test_the_top_class_and_its_rival() -> None:
    """The bound on the top class and the one on the class that comes closest share alpha; the others cost nothing."""
    assert 0 < worst(as_it_is, 1, "single:1.0", "mode") <= ALPHA


@pytest.mark.parametrize(("rule", "kind"), [*WAYS, ("interval", "quantile:0.3")])
def test_random_worlds(rule: str, kind: str) -> None:
    """Any probabilities, any guess, three classes: never above alpha."""
    rng = np.random.default_rng([8, len(rule), len(kind)])
    for _ in range(25):
        count = int(rng.integers(2, 4))
        router, labels = rng.dirichlet(np.full(count, 0.5)), rng.dirichlet([3.0, 1.0, 0.5], count)
        sigmas = tuple(np.sort(rng.uniform(0.2, 2.0, count)).tolist())
        world = World(router, labels, sigmas, int(rng.integers(count)))
        assert error(world.plan(as_it_is, rule, kind), world, n=8) <= ALPHA


def test_every_planner_is_in_the_table() -> None:
    assert set(PLANNERS.values()) == {union_bound, as_it_is, all_of_alpha_for_each_claim}
