"""Derived certificates err with probability at most alpha, exactly, over all votes and pairs; mistakes err more."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import special, stats

from dualsmooth.runtime.statistics import deriving
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.deriving import Pairs, disagreement, every_stream, settle_derived
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, SELECTION, Stream, Tally

ALPHA = 0.1
STREAMS = every_stream(2)
Law = tuple[float, float]
"""Of one stream with two classes: the old network's probability of class 0, and how much of it the new one loses."""


def terms_of(votes: int) -> Terms:
    return checked_terms((1.0, 1.0 + 1e-9), 1.0, 2, alpha=ALPHA, rule="interval", route=None, budget=Fixed(votes, 1))


def derived(terms: Terms, pairs: int, stream: Stream, kept: int, lost: int) -> tuple[float, ...]:
    """A_0, A_1 and e_1 where one stream has these votes for class 0 and pairs that leave it; the others are perfect."""
    n = terms.budget.looks[-1]
    tally, paired = Tally(2, 2), Pairs(2, 2)
    for name in STREAMS:
        k, d = (kept, lost) if name == stream else (n, 0)
        tally.record(name._replace(purpose=SELECTION), np.array([1, 0]))
        tally.record(name, np.array([k, n - k]))
        paired.record(name, np.array([pairs - d, d, 0, 0]))
    outcome = settle_derived(terms, tally, paired)
    return (*outcome.class_radii, outcome.exclusion[1])


def error(votes: int, pairs: int, laws: dict[Stream, Law]) -> float:
    """The exact probability that R = min(A_0, max(e_1, A_1)) is above the true one of the new network. The new network
    only loses votes for class 0: what it wins besides raises the truth alone."""
    terms = terms_of(votes)
    truth = {stream: max(0.0, float(special.ndtri(p - lost))) for stream, (p, lost) in laws.items()}
    router, first, second = STREAMS
    radius = min(truth[first], max(truth[router], truth[second])) + 1e-6
    above = {}
    for stream, place in ((first, 0), (second, 1), (router, 2)):
        p, lost = laws[stream]
        k, d = np.arange(votes + 1), np.arange(pairs + 1)
        chance = stats.binom.pmf(k, votes, p)[:, None] * stats.binom.pmf(d, pairs, lost)
        seen = chance > 1e-12  # what is left out together is below 1e-9
        reach = [derived(terms, pairs, stream, int(a), int(b))[place] > radius for a, b in np.argwhere(seen)]
        above[stream] = float(chance[seen][np.array(reach)].sum())
    return above[first] * (1 - (1 - above[router]) * (1 - above[second]))


def worst(votes: int, pairs: int) -> float:
    """The largest error where one level bounds the radius, by its label or by its exclusion, in many worlds."""
    far = (1.0, 0.0)
    errors = []
    for p, lost in product((0.8, 0.95), (0.02, 0.15)):
        errors.append(error(votes, pairs, {STREAMS[0]: far, STREAMS[1]: (p, lost), STREAMS[2]: far}))
        errors.append(error(votes, pairs, {STREAMS[0]: (p, lost), STREAMS[1]: far, STREAMS[2]: (p, lost)}))
    return max(errors)


@pytest.mark.parametrize(("votes", "pairs"), [(30, 8), (8, 30)])
def test_exact_errors_are_at_most_alpha(votes: int, pairs: int) -> None:
    assert worst(votes, pairs) <= ALPHA


def test_a_measured_rate_in_place_of_a_bound_errs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: no alpha for how often the networks disagree."""

    def measured(claim: Claim, pairs: Pairs) -> float:
        table = pairs.table(Stream(claim.stage, claim.level, ESTIMATION))
        return float(table[0, 1] / table.sum()) if claim.event == (0,) else 0.0

    monkeypatch.setattr(deriving, "disagreement", measured)
    assert worst(30, 8) > 2 * ALPHA


def test_the_old_bound_alone_errs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the old certificate, shown for the new network."""
    nothing: Callable[[Claim, Pairs], float] = lambda claim, pairs: 0.0  # noqa: E731
    monkeypatch.setattr(deriving, "disagreement", nothing)
    assert worst(30, 8) > 2 * ALPHA


def test_pairs_on_noise_that_the_new_network_was_made_with_err() -> None:
    """There are 1,000 noises, each as likely. A network that answers as the old one on the 100 that were seen, and else
    otherwise, agrees with it on these always, and on fresh ones with probability 1/10: so pairs draw their own."""
    seen, there = 100, 1_000
    claim = Claim(CLASSIFIER, 0, (0,), ALPHA)

    def bound(lost: int) -> float:
        pairs = Pairs(2, 1)
        pairs.record(Stream(CLASSIFIER, 0, ESTIMATION), np.array([seen - lost, lost, 0, 0]))
        return 1 - disagreement(claim, pairs)

    truth = seen / there
    assert bound(0) > 0.9 > truth
    lost = np.arange(seen + 1)
    errs = np.array([bound(int(d)) > truth for d in lost])
    assert stats.binom.pmf(lost[errs], seen, 1 - truth).sum() <= ALPHA
