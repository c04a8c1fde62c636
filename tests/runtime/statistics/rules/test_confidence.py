"""The cascade that needs no router: its certificates against the cascade's exact answers along a line, by enumeration
of all votes of both levels, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from enumerated import LINE, by_hand, hardest_ends, nearest_other
from scipy import special, stats

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.budgets import AtRadius, Fixed
from dualsmooth.runtime.statistics.certification import certification, checked_terms, settle
from dualsmooth.runtime.statistics.rules import rule_named
from dualsmooth.runtime.statistics.rules.confidence import Confidence
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream, Tally

SIGMAS = (0.5, 1.0)
N, ALPHA = 5, 0.1


@dataclass(frozen=True)
class World:
    """Three classes on the line, the input at 0: at each level, class 1 between two cuts, 0 below and 2 above."""

    cuts: tuple[tuple[float, float], tuple[float, float]]
    least: float

    def shares(self, level: int, x: np.ndarray) -> np.ndarray:
        """The probabilities [len(x), 3] of a vote at a level."""
        below = special.ndtr((np.array(self.cuts[level]) - x[:, None]) / SIGMAS[level])
        return np.diff(below, axis=1, prepend=0.0, append=1.0)

    def true_radius(self, label: int) -> float:
        """Distance from 0 to the nearest point of the line where the cascade answers otherwise."""
        small, large = (self.shares(level, LINE) for level in (0, 1))
        answers = np.where(large.max(1) >= self.least, large.argmax(1), small.argmax(1))
        return nearest_other(answers, label)


def counts_of_all() -> list[np.ndarray]:
    return [np.array([a, b, N - a - b]) for a in range(N + 1) for b in range(N + 1 - a)]


def outcomes(terms: Terms, guesses: tuple[int, int]) -> list[tuple[int, float, int, int]]:
    """Label and radius of every pair of counts that certifies, with their places in `counts_of_all`; a guess of -1 is a
    level whose selection votes are not sure enough."""
    found, every = [], list(enumerate(counts_of_all()))
    for pair in product(every, repeat=2):
        tally = terms.tally()
        for level, (guess, (_, counts)) in enumerate(zip(guesses, pair, strict=True)):
            selection = np.full(3, 4) if guess < 0 else 12 * np.eye(3, dtype=np.int64)[guess]
            tally.record(Stream(CLASSIFIER, level, SELECTION), selection)
            tally.record(Stream(CLASSIFIER, level, ESTIMATION), counts)
        outcome = settle(terms, tally)
        if outcome.label is not None:
            found.append((outcome.label, outcome.radius, pair[0][0], pair[1][0]))
    return found


def error(made: list[tuple[int, float, int, int]], world: World) -> float:
    """The exact probability that a certified radius is above the true one, over all counts of both levels."""
    zero, truths = np.zeros(1), [world.true_radius(label) for label in range(3)]
    chances = [stats.multinomial.pmf(counts_of_all(), N, world.shares(level, zero)[0]) for level in (0, 1)]
    return float(sum(chances[0][a] * chances[1][b] for label, radius, a, b in made if radius > truths[label]))


def terms_of(least: float, alpha: float = ALPHA) -> Terms:
    fixed = Fixed(N, n0=12)
    return checked_terms(SIGMAS, 1.0, 3, alpha=alpha, rule=f"confidence:{least}", route=None, budget=fixed)


def worlds(least: float) -> list[World]:
    """Ends just below what some count of votes proves at shares of alpha that the rule uses: where claims err most."""
    ends = hardest_ends((N - 1, N), N, (0.9 * ALPHA, 0.1 * ALPHA, 0.09 * ALPHA))
    cut = float(special.ndtri(least))
    far = 9.0
    found = [World(((-far, end / 2), (-far, far)), least) for end in ends]  # level 1 surely says 1
    for end in ends:
        found.append(World(((-far, far), (-far, end)), least))  # class 2 comes close at level 1
        found.append(World(((-far, end / 2), (-end - cut, end + cut)), least))  # level 1 is not asked, or is
        found.append(World(((-far, 1e-3), (-far, max(end, cut + 1e-3))), least))  # sure enough by a hair
        found.append(World(((-far, far), (-0.2, max(1e-3, -end - cut))), least))
    other = [World(((-far - 1, -far), (-far, float(special.ndtri(p)))), least) for p in (0.62, 0.66)]
    return found + other  # the last ones: a small level that answers otherwise wherever it is asked


GUESSES = ((1, 1), (1, -1), (0, 1), (2, 1), (1, 2))


@pytest.mark.parametrize("least", [0.4, 0.5, 0.6])
def test_no_radius_is_too_large_more_often_than_alpha(least: float) -> None:
    made = [outcomes(terms_of(least), guesses) for guesses in GUESSES]
    worst = max(error(of_one, world) for world in worlds(least) for of_one in made)
    assert ALPHA / 3 < worst <= ALPHA * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong", ["every claim has four times its alpha", "no other class need be silent", "asked at no margin"]
)
def test_the_enumeration_sees_what_claims_too_much(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, plan = Confidence.claims, Confidence.plan

    def claims(self: Confidence, terms: Terms, route: int, label: int) -> list[Claim]:
        return plain(self, replace(terms, alpha=4 * terms.alpha), route, label)

    def planned(self: Confidence, terms: Terms, route: int, label: int) -> object:
        rule = Confidence((0.99 if wrong.startswith("no other") else 0.05,))
        return replace(plan(self, terms, route, label), rule=rule)  # type: ignore[call-arg]

    if wrong.startswith("every"):
        monkeypatch.setattr(Confidence, "claims", claims)
    else:
        monkeypatch.setattr(Confidence, "plan", planned)
    with pytest.raises(AssertionError, match="<="):
        test_no_radius_is_too_large_more_often_than_alpha(0.6)


def filled(terms: Terms, selection: tuple[list[int], ...], bounded: tuple[list[int], ...]) -> Tally:
    tally = terms.tally()
    for level, (first, second) in enumerate(zip(selection, bounded, strict=True)):
        tally.record(Stream(CLASSIFIER, level, SELECTION), np.array(first))
        tally.record(Stream(CLASSIFIER, level, ESTIMATION), np.array(second))
    return tally


def test_the_radius_is_worked_out_by_hand() -> None:
    """The guessed level is the large one: it says 1 as far as its own bounds go, and the small one is not asked as far
    as it is sure enough, or says 1 itself."""
    fixed = Fixed(1000, n0=10)
    terms = checked_terms(SIGMAS, 1.0, 3, alpha=0.01, rule="confidence:0.6", route=None, budget=fixed)
    found = settle(terms, filled(terms, ([0, 9, 1], [0, 9, 1]), ([0, 700, 300], [30, 950, 20])))
    cut = float(special.ndtri(0.6))
    top, rival = by_hand(950, 1000, 0.009), by_hand(970, 1000, 0.001)
    large = max(top, (top + rival) / 2, rival + cut)
    asked, own = top - cut, 0.5 * by_hand(700, 1000, 0.0009)
    assert found.label == found.guess == found.route == 1
    assert found.exclusion == pytest.approx([asked, rival + cut], abs=2e-6)
    assert found.radius == pytest.approx(min(large, max(asked, own)), abs=2e-6)


def test_a_level_above_that_is_unsure_is_silent_about_other_classes() -> None:
    """The small level is the guessed one; the large one has too few votes for any class but the label to answer."""
    fixed = Fixed(1000, n0=10)
    terms = checked_terms(SIGMAS, 1.0, 3, alpha=0.01, rule="confidence:0.6", route=None, budget=fixed)
    found = settle(terms, filled(terms, ([0, 9, 1], [4, 3, 3]), ([10, 960, 30], [400, 350, 250])))
    silent = by_hand(600, 1000, 0.009) + float(special.ndtri(0.6))
    top, rival = by_hand(960, 1000, 0.009), by_hand(970, 1000, 0.001)
    assert (found.label, found.route) == (1, 0)
    assert found.route_radius == pytest.approx(silent, abs=2e-6)
    assert found.radius == pytest.approx(min(silent, 0.5 * max(top, (top + rival) / 2)), abs=2e-6)


def test_each_level_may_have_a_probability_of_its_own() -> None:
    """Half of the votes are enough at sigma = .5, which so answers; at sigma = 1, where .7 are needed, .6 are not."""
    fixed = Fixed(1000, n0=10)
    terms = checked_terms((0.25, *SIGMAS), 1.0, 3, alpha=0.01, rule="confidence:0.5/0.7", route=None, budget=fixed)
    selection = ([9, 1, 0], [2, 6, 2], [4, 6, 0])
    found = settle(terms, filled(terms, selection, ([900, 100, 0], [10, 970, 20], [370, 600, 30])))
    asked = 0.5 * by_hand(970, 1000, 0.009)  # above one half, so that sigma = .25 is not asked
    silent = by_hand(630, 1000, 0.009) + float(special.ndtri(0.7))
    assert (found.label, found.route) == (1, 1)
    assert found.exclusion == pytest.approx([asked, 0.5 * by_hand(980, 1000, 0.001), silent], abs=2e-6)
    assert found.radius == pytest.approx(min(asked, silent), abs=2e-6)
    assert terms.rule.subject(terms).endswith("has at least 0.5 (at 0.5), 0.7 (at 1.0) of the votes answers")


def test_it_asks_for_no_router_and_for_no_level_that_cannot_matter() -> None:
    budget = AtRadius(0.5, 1000, n0=10)
    terms = checked_terms((0.25, *SIGMAS), 1.0, 3, alpha=0.01, rule="confidence", route=None, budget=budget)
    tally = terms.tally()
    for requests in certification(terms, tally):
        for stream, until in requests:
            assert stream.stage != ESTIMATOR
            tally.record(stream, np.array([0, until, 0]))
    assert settle(terms, tally).radius >= 0.5
    assert {stream.level for stream in tally.looks} == {2}


@pytest.mark.parametrize(
    "text",
    [
        "confidence:",
        "confidence:x",
        "confidence:0",
        "confidence:1",
        "confidence:nan",
        "confidence:0.5/",
        "confidence:0.5/2",
    ],
)
def test_a_probability_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"expected confidence:P with P from 0\.01 to 0\.99"):
        rule_named(text, SIGMAS)


def test_probabilities_are_as_many_as_levels_above_the_smallest() -> None:
    with pytest.raises(InputError, match=r"one P for each noise level above the smallest \(here 1\)"):
        rule_named("confidence:0.5/0.7", SIGMAS)
    assert str(rule_named("confidence:0.5/0.70", (0.25, *SIGMAS))) == "confidence:0.5/0.7"


def test_a_name_without_a_probability_means_a_half() -> None:
    assert str(rule_named("confidence", SIGMAS)) == "confidence:0.5"
    assert str(rule_named("confidence:0.70", SIGMAS)) == "confidence:0.7"


THREE = (0.25, *SIGMAS)


def test_a_level_between_keeps_the_smallest_from_being_asked_too() -> None:
    """At sigma = 1 the label barely reaches P, at .5 it is far above, and the smallest level is not asked for that."""
    fixed = Fixed(1000, n0=10)
    terms = checked_terms(THREE, 1.0, 3, alpha=0.01, rule="confidence:0.4", route=None, budget=fixed)
    selection = ([9, 1, 0], [0, 9, 1], [2, 6, 2])
    found = settle(terms, filled(terms, selection, ([900, 100, 0], [10, 970, 20], [250, 500, 250])))
    cut = float(special.ndtri(0.4))
    large, middle = by_hand(500, 1000, 0.006) - cut, 0.5 * (by_hand(970, 1000, 0.003) - cut)
    assert (found.label, found.route) == (1, 2)
    assert found.exclusion[0] == pytest.approx(max(large, middle), abs=2e-6)
    assert middle > large
