"""The cascade of sure votes: its certificates against the cascade's exact answers along a line, by enumeration of all
votes of both levels, and against `confidence`, which it is where every vote is sure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from enumerated import LINE, by_hand, hardest_ends, nearest_other
from scipy import special, stats

from dualsmooth.runtime.statistics.budgets import AtRadius, Fixed
from dualsmooth.runtime.statistics.certification import certification, checked_terms, settle
from dualsmooth.runtime.statistics.rules.plan import Claim, Plan
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.rules.sure import Sure
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, SELECTION, Counts, Stream, Tally

SIGMAS = (0.5, 1.0)
N, ALPHA, FAR = 4, 0.1, 9.0


@dataclass(frozen=True)
class World:
    """Three classes on the line, the input at 0. At the small level class 1 lies between two cuts, 0 below and 2 above;
    at the large one four cuts bound, from below: sure of 0, unsure, sure of 1, unsure, sure of 2. An unsure vote there
    is for 1, so that all votes together would be for it."""

    small: tuple[float, float]
    large: tuple[float, float, float, float]
    least: float

    def shares(self, level: int, x: np.ndarray) -> np.ndarray:
        """The probabilities of a vote at a level: [len(x), 3] of the small one; of the large one [len(x), 4], the last
        those of an unsure vote."""
        cuts = np.array(self.large if level else self.small)
        parts = np.diff(special.ndtr((cuts - x[:, None]) / SIGMAS[level]), axis=1, prepend=0.0, append=1.0)
        return np.stack([parts[:, 0], parts[:, 2], parts[:, 4], parts[:, 1] + parts[:, 3]], 1) if level else parts

    def true_radius(self, label: int) -> float:
        """Distance from 0 to the nearest point of the line where the cascade answers otherwise."""
        small, large = self.shares(0, LINE), self.shares(1, LINE)[:, :3]
        answers = np.where(large.max(1) >= self.least, large.argmax(1), small.argmax(1))
        return nearest_other(answers, label)


def every_split(kinds: int) -> list[Counts]:
    """All ways to share N votes among so many kinds."""
    return [np.array(c) for c in product(range(N + 1), repeat=kinds) if sum(c) == N]


def terms_of(least: float, alpha: float = ALPHA) -> Terms:
    fixed = Fixed(N, n0=12)
    rule = f"sure:{least}"
    return checked_terms(SIGMAS, 1.0, 3, alpha=alpha, rule=rule, route=None, budget=fixed, sure=(0.8,))


def put(tally: Tally, level: int, purpose: str, split: Counts) -> None:
    """Record a split of votes; the large level's last part is unsure, of class 1."""
    sure = np.array(split[:3])
    unsure = [0, int(split[3]), 0] if level else [0, 0, 0]
    stream = Stream(CLASSIFIER, level, SELECTION if purpose == "selection" else ESTIMATION)
    tally.record(stream, sure + unsure, sure if level else None)


def outcomes(terms: Terms, guesses: tuple[int, int]) -> list[tuple[int, float, int, int]]:
    """Label and radius of every pair of splits that certifies, with their places in `every_split`; a guess of 3 is a
    large level that is unsure in selection."""
    found = []
    for (i, small), (j, large) in product(enumerate(every_split(3)), enumerate(every_split(4))):
        tally = terms.tally()
        put(tally, 0, "selection", 12 * np.eye(3, dtype=np.int64)[guesses[0]])
        put(tally, 1, "selection", 12 * np.eye(4, dtype=np.int64)[guesses[1]])
        put(tally, 0, "estimation", small)
        put(tally, 1, "estimation", large)
        outcome = settle(terms, tally)
        if outcome.label is not None:
            found.append((outcome.label, outcome.radius, i, j))
    return found


def error(made: list[tuple[int, float, int, int]], world: World) -> float:
    """The exact probability that a certified radius is above the true one, over all votes of both levels."""
    zero, truths = np.zeros(1), [world.true_radius(label) for label in range(3)]
    small, large = (stats.multinomial.pmf(every_split(3 + level), N, world.shares(level, zero)[0]) for level in (0, 1))
    return float(sum(small[i] * large[j] for label, radius, i, j in made if radius > truths[label]))


def worlds(least: float) -> list[World]:
    """Ends just below what some count of votes proves at shares of alpha that the rule uses: where claims err most."""
    ends = hardest_ends((N - 1, N), N, (0.9 * ALPHA, 0.1 * ALPHA, 0.09 * ALPHA))
    cut, found = float(special.ndtri(least)), []
    for end in ends:
        found.append(World((-FAR, end / 2), (-FAR, -FAR, FAR, FAR), least))  # the large level is surely sure of 1
        found.append(World((-FAR, FAR), (-FAR, -FAR, end, end), least))  # class 2 comes close there
        found.append(World((-FAR, end / 2), (-FAR, -end - cut, end + cut, FAR), least))  # it is not asked, or is
        found.append(World((-FAR, 1e-3), (-FAR, -FAR, max(end, cut + 1e-3), FAR), least))  # sure enough by a hair
        found.append(World((-FAR, FAR), (-FAR, -0.2, -0.1, max(1e-3, -end - cut)), least))  # unsure, or sure of 2
    other = [World((-FAR - 1, -FAR), (-FAR, -FAR, float(special.ndtri(p)), FAR), least) for p in (0.3, 0.62, 0.66)]
    return found + other  # the last ones: a small level that answers otherwise wherever it is asked


GUESSES = ((1, 1), (1, 3), (0, 1), (2, 1), (1, 2))


@pytest.mark.parametrize("least", [0.3, 0.6])
def test_no_radius_is_too_large_more_often_than_alpha(least: float) -> None:
    made = [outcomes(terms_of(least), guesses) for guesses in GUESSES]
    worst = max(error(of_one, world) for world in worlds(least) for of_one in made)
    assert ALPHA / 3 < worst <= ALPHA * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong", ["every claim has four times its alpha", "unsure votes count for their class", "no rival need be silent"]
)
def test_the_enumeration_sees_what_claims_too_much(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, plan = Sure.claims, Sure.plan

    def claims(self: Sure, terms: Terms, route: int, label: int) -> list[Claim]:
        if wrong.startswith("every"):
            return plain(self, replace(terms, alpha=4 * terms.alpha), route, label)
        return [replace(claim, sure=False, event=(label,)) for claim in plain(self, terms, route, label)]

    def planned(self: Sure, terms: Terms, route: int, label: int) -> Plan:
        return replace(plan(self, terms, route, label), rule=Sure((0.99,)))  # type: ignore[call-arg]

    if wrong.startswith("no rival"):
        monkeypatch.setattr(Sure, "plan", planned)
    else:
        monkeypatch.setattr(Sure, "claims", claims)
    with pytest.raises(AssertionError, match="<="):
        test_no_radius_is_too_large_more_often_than_alpha(0.3)


def test_the_radius_is_worked_out_by_hand() -> None:
    """At sigma = 1 class 1 has 450 of 1,000 votes in sure ones, more than .3, and no other class more than 40."""
    terms = checked_terms(
        SIGMAS, 1.0, 3, alpha=0.01, rule="sure:0.3", route=None, budget=Fixed(1000, n0=10), sure=(0.9,)
    )
    tally, level = terms.tally(), Stream(CLASSIFIER, 1, SELECTION)
    tally.record(Stream(CLASSIFIER, 0, SELECTION), np.array([0, 9, 1]))
    tally.record(level, np.array([4, 5, 1]), np.array([0, 4, 0]))
    tally.record(Stream(CLASSIFIER, 0, ESTIMATION), np.array([0, 700, 300]))
    tally.record(level._replace(purpose=ESTIMATION), np.array([250, 600, 150]), np.array([40, 450, 20]))
    found = settle(terms, tally)
    cut = float(special.ndtri(0.3))
    top, rival = by_hand(450, 1000, 0.009), by_hand(960, 1000, 0.001)
    asked, own = top - cut, 0.5 * by_hand(700, 1000, 0.0009)
    assert (found.label, found.route) == (1, 1)
    assert found.exclusion == pytest.approx([asked, rival + cut], abs=2e-6)
    assert found.radius == pytest.approx(min(max((top + rival) / 2, rival + cut), max(asked, own)), abs=2e-6)
    assert "softmax from 0.9 at 1.0" in terms.subject


def test_where_every_vote_is_sure_it_is_confidence() -> None:
    rng = np.random.default_rng(0)
    sigmas, fixed = (0.25, *SIGMAS), Fixed(200, n0=20)
    rules = ("sure:0.4/0.6", "confidence:0.4/0.6")
    for _ in range(200):
        votes = {
            Stream(CLASSIFIER, level, purpose): rng.multinomial(n, rng.dirichlet([0.6, 2, 0.4]))
            for level in range(3)
            for purpose, n in ((SELECTION, 20), (ESTIMATION, 200))
        }
        found = []
        for rule in rules:
            terms = checked_terms(sigmas, 1.0, 3, alpha=0.01, rule=rule, route=None, budget=fixed)
            tally = terms.tally()
            for stream, counts in votes.items():
                tally.record(stream, counts)
            found.append(settle(terms, tally))
        assert found[0] == found[1]


def test_it_asks_the_next_smaller_level_where_votes_are_many_and_not_sure() -> None:
    budget = AtRadius(0.1, 1000, n0=10)
    terms = checked_terms(SIGMAS, 1.0, 3, alpha=0.01, rule="sure", route=None, budget=budget, sure=(0.9,))
    tally = terms.tally()
    for requests in certification(terms, tally):
        for stream, until in requests:
            votes = np.array([0, until, 0])
            tally.record(stream, votes, 0 * votes if stream.level else None)
    found = settle(terms, tally)
    assert (found.label, found.route) == (1, 0)
    assert found.radius >= 0.1


NEAR = (0.25, 0.95, 1.0)
FEW = 10


def three_errors() -> list[float]:
    """For worlds of three levels: the exact probability that a radius is above the true one, over all votes. Votes of
    the two larger levels are sure of class 1 up to a cut, else not sure; each may keep the smallest, which says 2, from
    being asked."""
    rule, fixed = "sure:0.6", Fixed(FEW, n0=12)
    terms = checked_terms(NEAR, 1.0, 3, alpha=ALPHA, rule=rule, route=None, budget=fixed, sure=(0.8, 0.8))
    made = []
    for hits in product(range(FEW + 1), repeat=2):
        tally = terms.tally()
        tally.record(Stream(CLASSIFIER, 0, SELECTION), np.array([0, 0, 12]))
        tally.record(Stream(CLASSIFIER, 0, ESTIMATION), np.array([0, 0, FEW]))
        for level, sure in enumerate(hits, start=1):
            tally.record(Stream(CLASSIFIER, level, SELECTION), np.array([0, 12, 0]), np.array([0, 12, 0]))
            tally.record(Stream(CLASSIFIER, level, ESTIMATION), np.array([0, FEW, 0]), np.array([0, sure, 0]))
        if (outcome := settle(terms, tally)).label is not None:
            made.append((outcome.radius, hits))
    cut = float(special.ndtri(0.6))
    ends = hardest_ends((FEW - 2, FEW - 1, FEW), FEW, (0.9 * ALPHA, 0.6 * ALPHA, 0.3 * ALPHA))
    errors = []
    for large, middle in product(ends, repeat=2):
        true = max(0.0, large - cut, NEAR[1] * (middle - cut))  # nearer than that, one of the two answers 1
        shares = [float(special.ndtr(end)) for end in (middle, large)]
        wrong = sum(
            math.prod(float(stats.binom.pmf(k, FEW, p)) for k, p in zip(hits, shares, strict=True))
            for radius, hits in made
            if radius > true
        )
        errors.append(wrong)
    return errors


def test_two_levels_that_keep_the_smallest_from_being_asked_share_alpha() -> None:
    assert ALPHA / 3 < max(three_errors()) <= ALPHA * (1 + 1e-9)


def test_two_levels_that_spend_alpha_each_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Sure.claims

    def claims(self: Sure, terms: Terms, route: int, label: int) -> list[Claim]:
        return [
            replace(claim, alpha=0.9 * terms.alpha) if claim.level > 0 and not claim.rivals else claim
            for claim in plain(self, terms, route, label)
        ]

    monkeypatch.setattr(Sure, "claims", claims)
    assert max(three_errors()) > 1.2 * ALPHA
