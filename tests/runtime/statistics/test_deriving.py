"""Pairs of votes and what they prove: counts by hand, closed forms, what a file may state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plans import plan_of
from scipy.special import ndtri

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.statistics.bounds import lower_bound, upper_bound
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.deriving import (
    PAIRED_SHARE,
    Pairs,
    agreeing,
    disagreement,
    every_stream,
    monotone,
    settle_derived,
    worth_pairing,
)
from dualsmooth.runtime.statistics.rules.interval import EXCLUSION_SHARE
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream, Tally

TABLE = np.array([[50, 3, 2], [4, 20, 1], [6, 5, 9]])
"""Pairs: rows are the old votes, columns the new ones."""


def terms_of(rule: str = "interval", levels: int = 2) -> Terms:
    sigmas = tuple(0.25 * (s + 1) for s in range(levels))
    return checked_terms(sigmas, 1.0, 3, alpha=0.001, rule=rule, route=None, budget=Fixed(1_000, 10))


def tally_of(terms: Terms, router: list[int], labels: list[list[int]]) -> Tally:
    tally = terms.tally()
    tally.record(Stream(ESTIMATOR, 0, SELECTION), np.eye(len(router), dtype=np.int64)[int(np.argmax(router))] * 10)
    tally.record(Stream(ESTIMATOR, 0, ESTIMATION), np.array(router))
    for level, counts in enumerate(labels):
        tally.record(Stream(CLASSIFIER, level, SELECTION), np.array([10, 0, 0]))
        tally.record(Stream(CLASSIFIER, level, ESTIMATION), np.array(counts))
    return tally


@pytest.mark.parametrize(
    ("event", "rivals", "lost"),
    [((0,), False, 3 + 2), ((0, 1), False, 2 + 1), ((2,), False, 6 + 5), ((0,), True, 3 + 5), ((1,), True, 4 + 6)],
)
def test_lost_votes_are_those_that_leave_the_event(event: tuple[int, ...], rivals: bool, lost: int) -> None:
    """Without `rivals`: old inside, new outside. With: for each other class, old not it and new it; the worst one."""
    pairs = Pairs(3, 2)
    pairs.record(Stream(CLASSIFIER, 1, ESTIMATION), TABLE.ravel())
    found = disagreement(Claim(CLASSIFIER, 1, event, 0.01, rivals), pairs)
    assert found == float(upper_bound(lost, 100, PAIRED_SHARE * 0.01))


def test_without_a_disagreement_the_bound_is_in_closed_form() -> None:
    pairs = agreeing(terms_of(), every_stream(2), 1_000)
    found = disagreement(Claim(ESTIMATOR, 0, (1,), 0.001), pairs)
    assert found == pytest.approx(1 - (PAIRED_SHARE * 0.001) ** (1 / 1_000), rel=1e-9)


def test_a_stream_without_pairs_proves_nothing() -> None:
    assert disagreement(Claim(CLASSIFIER, 0, (1,), 0.001), Pairs(3, 2)) == 1.0


@pytest.mark.parametrize("rule", ["interval", "paper", "single:0.25"])
def test_pairs_only_cost(rule: str) -> None:
    """Without a disagreement the derived radius is a little below that of the votes, and nears it with more pairs."""
    terms = terms_of(rule)
    tally = tally_of(terms, [900, 100], [[950, 30, 20], [800, 150, 50]])
    own = settle(terms, tally).radius
    radii = [settle_derived(terms, tally, agreeing(terms, every_stream(2), n)).radius for n in (500, 5_000, 10**9)]
    assert 0 < radii[0] < radii[1] < radii[2] < own
    assert radii[2] > 0.9 * own


def test_no_level_is_excluded_by_the_claim_of_another() -> None:
    """Votes that swap levels 0 and 1 leave the event {0} but not {0, 1}; the other way round, one that moves from 1 to
    2 leaves {0, 1} alone. Then the smaller event has the better bound, and its level's alpha would count twice."""
    plan = plan_of("paper", "median", sigmas=(0.25, 0.5, 1.0), sigma_e=1.0, classes=3, alpha=0.01, route=0, label=0)
    small, large = ([c.event for c in plan.claims].index(event) for event in ((0,), (0, 1)))
    lower = np.full(len(plan.claims), 0.9)
    lower[large] = 0.6
    own = np.full(len(plan.claims), 0.6)
    assert plan.exclusion(lower)[2] > plan.exclusion(own)[2]
    found = monotone(plan, lower)
    assert plan.exclusion(found)[2] == plan.exclusion(own)[2]
    assert found[small] == found[large] == 0.6
    lower[small], lower[large] = 0.6, 0.9
    assert monotone(plan, lower).tolist() == lower.tolist()


def test_an_exclusion_rests_on_its_own_event() -> None:
    """60 of 1,000 pairs move from level 1 to 2: the event {0} loses nothing, {0, 1}, which excludes level 2, all 60."""
    terms, alpha = terms_of(levels=3), EXCLUSION_SHARE * 0.001
    tally = tally_of(terms, [970, 20, 10], [[1000, 0, 0]] * 3)
    pairs = agreeing(terms, every_stream(3), 1_000)
    table = np.zeros((3, 3), np.int64)
    table[0, 0], table[1, 2] = 940, 60
    pairs.looks[Stream(ESTIMATOR, 0, ESTIMATION)] = [table.ravel()]
    kept = lower_bound(990, 1_000, (1 - PAIRED_SHARE) * alpha) - upper_bound(60, 1_000, PAIRED_SHARE * alpha)
    found = settle_derived(terms, tally, pairs).exclusion
    assert found[2] == pytest.approx(float(ndtri(kept)), abs=2e-6)
    assert found[1] == found[2]  # no farther, though {0} alone would carry it


def test_only_streams_that_the_radius_needs_are_paired() -> None:
    terms = terms_of()
    clear = tally_of(terms, [1000, 0], [[990, 5, 5], [600, 300, 100]])
    assert worth_pairing(terms, clear, 1_000) == [Stream(ESTIMATOR, 0, ESTIMATION), Stream(CLASSIFIER, 0, ESTIMATION)]
    hopeless = tally_of(terms, [1000, 0], [[510, 480, 10], [600, 300, 100]])
    assert worth_pairing(terms, hopeless, 1_000) == []


def test_pairs_are_read_back() -> None:
    pairs = Pairs(3, 2)
    pairs.record(Stream(CLASSIFIER, 1, ESTIMATION), TABLE.ravel())
    pairs.record(Stream(ESTIMATOR, 0, ESTIMATION), np.array([0, 7, 0, 93]))
    data = pairs.to_dict()
    assert data["estimator/0"] == {"0>1": 7, "1>1": 93}
    assert Pairs.from_dict(data, classes=3, levels=2) == pairs


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"classifier/2": {"0>0": 1}},
        {"classifier/0/estimation": {"0>0": 1}},
        {"classifier/0": [1]},
        {"classifier/0": {"0>3": 1}},
        {"classifier/0": {"0": 1}},
        {"classifier/0": {"00>0": 1}},
        {"classifier/0": {"0>0": 0}},
        {"classifier/0": {"0>0": True}},
        {"classifier/0": {"0>0": 1 << 41}},
    ],
)
def test_pairs_that_no_sampling_gives_are_refused(data: Any) -> None:
    with pytest.raises(CertificateError, match="pairs"):
        Pairs.from_dict(data, classes=3, levels=2)


def test_what_has_no_claims_is_refused() -> None:
    terms = terms_of("multiscale")
    with pytest.raises(InputError, match=r"rule multiscale, version 2; .* certify anew"):
        settle_derived(terms, terms.tally(), Pairs(3, 2))
    with pytest.raises(InputError, match="5000 classes"):
        Pairs.from_dict({}, classes=5_000, levels=2)
