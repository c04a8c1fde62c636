"""Groups and sets in place of an abstention: exact errors over all votes, at worst cases and at random ones."""

from __future__ import annotations

import numpy as np
import pytest
from exact_groups import (
    ALPHA,
    World,
    as_it_is,
    by_bounded_votes,
    choices,
    enumerated,
    group_by_bounded_votes,
    planned,
    terms_of,
    worlds,
    worst,
)

TORN = list(worlds())[5::6]
"""Some of the worst cases of one sigma."""


def test_all_of_alpha_may_go_to_the_question_that_is_asked() -> None:
    """Sound, and tight."""
    assert 0.9 * ALPHA < worst(as_it_is) <= ALPHA


@pytest.mark.parametrize("way", [by_bounded_votes, group_by_bounded_votes])
def test_bounded_votes_must_not_choose(way: object) -> None:
    """Neither which question is asked, nor which group is asked about: the enumeration sees both."""
    assert worst(way) > 1.05 * ALPHA  # type: ignore[arg-type]


@pytest.mark.parametrize("at_most", [1, 2])
def test_two_levels(at_most: int) -> None:
    for labels in TORN[:2]:
        world = World(np.array([0.4, 0.6]), np.array([[0.98, 0.01, 0.01], labels]), (1.0, 1.01), 0)
        assert 0 < planned(terms_of(world.sigmas, "interval", at_most=at_most), world) <= ALPHA


def test_sets() -> None:
    assert max(enumerated(as_it_is, terms_of((1.0,), "single:1.0", at_most=2), labels) for labels in TORN) <= ALPHA


@pytest.mark.parametrize("at_most", [1, 2])
def test_random_worlds(at_most: int) -> None:
    rng = np.random.default_rng(22 + at_most)
    terms = terms_of((1.0,), "single:1.0", at_most=at_most)
    for _ in range(4):
        assert enumerated(as_it_is, terms, rng.dirichlet([2.0, 2.0, 1.0])) <= ALPHA


def test_one_level_by_claims_and_by_certificates_is_the_same() -> None:
    """Two ways to enumerate: all of `settle`, and the claims of the question that is asked."""
    terms = terms_of((1.0,), "single:1.0")
    world = World(np.ones(1), TORN[0][None], (1.0,), 0)
    assert sum(choices(terms, world).values()) == pytest.approx(1.0)
    assert planned(terms, world) == pytest.approx(enumerated(as_it_is, terms, TORN[0]), abs=1e-9)
