"""What every rule of the table must keep, with every budget that it takes, in both editions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from scipy import special, stats

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.curves import ORACLE_LEGEND
from dualsmooth.runtime.report.curves import COLOURS
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.budgets import BUDGETS, Budget, Fixed, parse_budget
from dualsmooth.runtime.statistics.certification import certification, checked_terms, of_edition_1, settle
from dualsmooth.runtime.statistics.rules import FORMS, PREDICTING, RULES, edition_1, rule_named
from dualsmooth.runtime.statistics.rules.rule import Rule, Terms
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATION,
    ESTIMATOR,
    SELECTION,
    Counts,
    Request,
    Stream,
    Tally,
)

SIGMAS = (0.25, 0.5, 1.0)
NAMES = [name for rule in RULES.values() for name in rule.all_named(SIGMAS)]
ROUTES = ("median", "mode", "quantile:0.3")
SIZED = [parse_budget(kind.example).sized(500) for kind in BUDGETS.values()]


def terms_of(name: str, route: str | None = None, budget: Budget | None = None, edition: int = 2) -> Terms:
    made = checked_terms(SIGMAS, 0.8, 3, alpha=0.01, rule=name, route=route, budget=budget or Fixed(100))
    return of_edition_1(made) if edition == 1 else made


def editions(name: str) -> tuple[int, ...]:
    return (1, 2) if type(rule_named(name, SIGMAS)) in edition_1.RULES else (2,)


def refusal(name: str, budget: Budget) -> str:
    """Why a rule does not take a budget; empty where it does."""
    try:
        rule_named(name, SIGMAS).check_budget(budget)
    except InputError as error:
        return str(error)
    return ""


def taken(name: str) -> list[Budget]:
    """The budgets that a rule takes, of every kind there is."""
    return [budget for budget in SIZED if not refusal(name, budget)]


# names and legends


@pytest.mark.parametrize("name", NAMES)
def test_its_name_reads_back(name: str) -> None:
    rule = rule_named(name, SIGMAS)
    assert str(rule) == name
    assert rule_named(str(rule), SIGMAS) == rule
    assert type(rule) is RULES[rule.kind]
    assert rule.form in FORMS
    assert not rule.predicts or rule.form in PREDICTING


def test_names_and_colours_are_unlike() -> None:
    assert len(set(NAMES)) == len(NAMES) >= len(RULES)
    legends = [*(rule.legend for rule in RULES.values()), ORACLE_LEGEND]
    for of_one in zip(*((x.name, x.meaning, x.colour) for x in legends), strict=True):
        assert len(set(of_one)) == len(legends)
    assert all(0 <= x.colour < COLOURS and x.meaning and "\n" not in x.meaning for x in legends)


@pytest.mark.parametrize(
    "text", ["", "best", "Interval", "interval ", "single", "single:", "single:0.3", "single:x", 3]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        rule_named(text, SIGMAS)


@pytest.mark.parametrize("sigma", [0.25, 1.0, 0.1234567, 1 / 3, 1e-7])
def test_a_name_with_a_noise_level_names_it_exactly(sigma: float) -> None:
    sigmas = (sigma / 2, sigma, sigma * 2)
    assert [rule_named(name, sigmas).level for name in Single.all_named(sigmas)] == [0, 1, 2]  # type: ignore[attr-defined]


def test_default_routes() -> None:
    assert {kind: rule.default_route for kind, rule in RULES.items()} == {
        **dict.fromkeys(RULES, "mode"),
        "interval": "median",
        "fallback": "median",
    }
    assert terms_of("interval").route_kind == "median"
    assert terms_of("paper").route_kind == "mode"
    assert terms_of("paper", "median").route_kind == "median"


@pytest.mark.parametrize("name", NAMES)
def test_it_says_which_budgets_it_does_not_take(name: str) -> None:
    reasons = [reason for budget in SIZED if (reason := refusal(name, budget))]
    assert all(name in reason and "expected" in reason for reason in reasons)
    assert len(reasons) < len(SIZED)


@pytest.mark.parametrize("name", [name for name in NAMES if 1 in editions(name)])
def test_its_first_edition_has_the_same_words(name: str) -> None:
    new, old = terms_of(name), terms_of(name, edition=1)
    assert (new.edition, old.edition) == (2, 1)
    assert new.to_dict() == old.to_dict()
    assert new.words() != old.words()
    assert new != old


def test_later_rules_have_no_first_edition(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {rule.kind for rule in edition_1.RULES} >= {"interval", "paper", "single", "multiscale"}
    monkeypatch.setattr(edition_1, "RULES", {})
    with pytest.raises(InputError, match="rule paper in a certificate of version 1, which knew no such rule"):
        of_edition_1(terms_of("paper"))


# what is drawn, and what it proves


def drawn(stream: Stream, until: int, rng: np.random.Generator, tally: Tally) -> Counts:
    """Votes up to `until`, on top of those that are there, with shares that differ from stream to stream."""
    before = tally.counts(stream)
    shares = np.random.default_rng([stream.level, len(stream.purpose)]).dirichlet([0.5, *[0.2] * (len(before) - 1)])
    shares[0 if stream.stage == CLASSIFIER else stream.level % len(shares)] += 9 * rng.random()
    return np.asarray(before + rng.multinomial(until - int(before.sum()), shares / shares.sum()), np.int64)


def run(terms: Terms, seed: int, *, all_levels: bool = False) -> tuple[Tally, list[Request]]:
    """A tally as the rule asks for it, and all that it asked for."""
    tally, asked, rng = terms.tally(), [], np.random.default_rng(seed)
    for requests in certification(terms, tally, all_levels=all_levels):
        asked += requests
        for stream, until in requests:
            tally.record(stream, drawn(stream, until, rng, tally))
    return tally, asked


CASES = [(name, budget, edition) for name in NAMES for budget in taken(name) for edition in editions(name)]


@pytest.mark.parametrize(("name", "budget", "edition"), CASES, ids=str)
def test_requests_stay_within_the_budget(name: str, budget: Budget, edition: int) -> None:
    terms = terms_of(name, budget=budget, edition=edition)
    for seed in range(5):
        tally, asked = run(terms, seed)
        for stream in tally.looks:
            until = [request.until for request in asked if request.stream == stream]
            fixed = (budget.selection,) if stream.purpose == SELECTION else budget.looks
            assert tuple(until) == fixed[: len(until)]
            assert stream.level < (1 if stream.stage == ESTIMATOR else len(SIGMAS))
        assert any(stream.purpose == ESTIMATION for stream in tally.looks)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_whether_it_may_ask_for_all_levels(name: str) -> None:
    """By selection votes of all streams, results files tell what was made with `--all-levels`."""
    terms, every = terms_of(name), len(SIGMAS) + 1
    seen = [sum(s.purpose == SELECTION for s in run(terms, seed)[0].looks) for seed in range(40)]
    assert terms.rule.may_ask_all or max(seen) < every


@pytest.mark.parametrize(("name", "budget", "edition"), CASES, ids=str)
def test_what_the_votes_prove_depends_on_them_alone(name: str, budget: Budget, edition: int) -> None:
    """The same votes give the same outcome: again, in any order of streams, and from a generator that starts anew."""
    terms = terms_of(name, budget=budget, edition=edition)
    for seed in range(5):
        tally, asked = run(terms, seed)
        before, outcome = tally.to_dict(), settle(terms, tally)
        assert settle(terms, tally) == outcome
        assert tally.to_dict() == before
        other = terms.tally()
        for stream in reversed(tally.looks):
            other.looks[stream] = [look.copy() for look in tally.looks[stream]]
        assert settle(terms, other) == outcome
        again, asked_again = run(terms, seed)
        assert (again.to_dict(), asked_again) == (before, asked)
        assert (outcome.label is None) == (outcome.radius == 0)
        assert outcome.label in (None, outcome.guess)
        assert 0 <= outcome.route < len(SIGMAS)
        assert outcome.radius == pytest.approx(round(outcome.radius / RADIUS_STEP) * RADIUS_STEP, abs=1e-12)


@pytest.mark.parametrize(("name", "budget", "edition"), CASES, ids=str)
def test_votes_that_are_missing_prove_nothing(name: str, budget: Budget, edition: int) -> None:
    """Without selection votes the certificate is refused; without bounded ones it is refused or not larger."""
    terms = terms_of(name, budget=budget, edition=edition)
    with pytest.raises(CertificateError, match="evaluate with --all-levels"):
        settle(terms, terms.tally())
    tally, _ = run(terms, 1)
    radius = settle(terms, tally).radius
    for stream in tally.looks:
        fewer = terms.tally()
        fewer.looks = {s: looks for s, looks in tally.looks.items() if s != stream}
        if stream.purpose == SELECTION:
            with pytest.raises(CertificateError, match="evaluate with --all-levels"):
                settle(terms, fewer)
            continue
        with suppress(CertificateError):
            assert settle(terms, fewer).radius <= radius


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", NAMES)
def test_votes_of_all_levels_are_enough(name: str, route: str) -> None:
    for budget in taken(name):
        terms = terms_of(name, route, budget)
        tally, _ = run(terms, 2, all_levels=True)
        assert settle(terms, tally).radius >= 0


def agreed(terms: Terms, level: int) -> Tally:
    """All votes for class 0 and one level."""
    tally = terms.tally()
    for stage, at in ((ESTIMATOR, 0), *((CLASSIFIER, s) for s in range(len(terms.sigmas)))):
        for purpose, sizes in ((SELECTION, (terms.budget.selection,)), (ESTIMATION, terms.budget.looks)):
            stream = Stream(stage, at, purpose)
            vote = np.eye(tally.width(stream), dtype=np.int64)[level if stage == ESTIMATOR else 0]
            for size in sizes:
                tally.record(stream, vote * size)
    return tally


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", NAMES)
def test_the_best_radius_is_that_of_votes_that_agree(name: str, route: str) -> None:
    for budget in taken(name):
        terms = terms_of(name, route, budget)
        best = max(settle(terms, agreed(terms, level)).radius for level in range(len(SIGMAS)))
        assert terms.rule.best_radius(terms) == pytest.approx(best, abs=2 * RADIUS_STEP)


# soundness, by enumeration


class World(NamedTuple):
    """Two levels and two classes on the line, the input at 0: the estimator votes for level 1 beyond `flip`, the
    classifier says 1 beyond `change`, by level. All that is smoothed is then a half line too, with these ends."""

    flip: float
    change: tuple[float, float]
    sigmas: tuple[float, float]

    def share(self, stream: Stream) -> float:
        """The probability of a vote for 0."""
        end, sigma = (self.flip, 1.0) if stream.stage == ESTIMATOR else self._classifier(stream.level)
        return float(special.ndtr(end / sigma))

    def _classifier(self, level: int) -> tuple[float, float]:
        return self.change[level], self.sigmas[level]

    def answers(self, subject: str) -> Callable[[float], int]:
        """The label at x of a smoothed classifier, by the words that certificates have for it."""
        level = {f"the classifier smoothed at sigma {s!r}": i for i, s in enumerate(self.sigmas)}.get(subject)
        # of two levels, median and mode are the same; of two classes, one has half of the votes, so no level falls back
        if level is None and subject.startswith(("the dual classifier, routed by the m", "the cascade from the m")):
            return lambda x: int(x > self.change[int(x > self.flip)])
        if level is None and subject.startswith("the cascade"):  # of two classes, one has more than half of the votes
            level = 1
        assert level is not None, f"a test that knows the true radius of {subject} is missing"
        return lambda x: int(x > self.change[level])

    def true_radius(self, subject: str, label: int) -> float:
        """Distance from 0 to the nearest other label."""
        answer, ends = self.answers(subject), sorted({0.0, *map(abs, (self.flip, *self.change))})
        points = [0.0]
        for near, far in zip(ends, [*ends[1:], ends[-1] + 1], strict=True):
            points += [(near + far) / 2, -(near + far) / 2]
        wrong = [abs(x) for x in points if answer(x) != label]
        return max((end for end in ends if end <= min(wrong)), default=0.0) if wrong else math.inf


N, ALPHA, FAR = 6, 0.1, 9.0


def worlds(alpha: float, rng: np.random.Generator) -> Iterator[World]:
    """Ends just below what some count of votes proves, at shares of alpha that rules use: where claims err most."""
    shares = [
        float(special.ndtri(float(lower_bound(k, N, part * alpha)))) - 1e-5  # radii are rounded down by 1e-6
        for k, part in product((N - 1, N), (1.0, 0.8, 0.49, 0.24))
    ]
    ends = [end for end in shares if end > 0]
    for end in ends:
        yield World(FAR, (end / 2, FAR), (0.5, 1.0))  # the label at level 0 bounds
        yield World(FAR, (FAR, end), (0.5, 1.0))  # the label at level 1, for rules that ask it first
        yield World(end, (FAR, -1.0), (0.5, 1.0))  # the router bounds
    for _ in range(2):
        flip, a, b = rng.choice(ends, 3) * rng.choice([1.0, 1.0, -1.0], 3)
        yield World(float(flip), (float(a) / 2, float(b)), (0.5, 1.0))


def error(terms: Terms, world: World, guesses: tuple[int, int, int]) -> float:
    """The exact probability that the certified radius is above the true one, given the guessed route and labels, over
    all counts of all bounded votes."""
    streams = [Stream(ESTIMATOR, 0, ESTIMATION), Stream(CLASSIFIER, 0, ESTIMATION), Stream(CLASSIFIER, 1, ESTIMATION)]
    chances = [stats.binom.pmf(np.arange(N + 1), N, world.share(stream)) for stream in streams]
    truths = [world.true_radius(terms.subject, label) for label in (0, 1)]
    total = 0.0
    for counts in product(range(N + 1), repeat=3):
        tally = terms.tally()
        for stream, guess, count in zip(streams, guesses, counts, strict=True):
            tally.record(stream._replace(purpose=SELECTION), np.eye(2, dtype=np.int64)[guess])
            tally.record(stream, np.array([count, N - count]))
        outcome = settle(terms, tally)
        if outcome.label is not None and outcome.radius > truths[outcome.label]:
            total += math.prod(chance[count] for chance, count in zip(chances, counts, strict=True))
    return total


@pytest.mark.parametrize(
    ("kind", "edition"),
    [
        pytest.param(kind, edition, marks=pytest.mark.slow if edition == 1 else ())
        for kind, rule in RULES.items()
        for edition in editions(rule.all_named(SIGMAS)[0])
    ],
)
@pytest.mark.parametrize("route", ["median", "mode"])
def test_no_radius_is_too_large_more_often_than_alpha(route: str, kind: str, edition: int) -> None:
    rng = np.random.default_rng([5, list(RULES).index(kind), edition])
    worst = 0.0
    for world in worlds(ALPHA, rng):
        for name in RULES[kind].all_named(world.sigmas)[:1]:
            fixed = {"alpha": ALPHA, "rule": name, "route": route, "budget": Fixed(N, n0=1)}
            terms = checked_terms(world.sigmas, 1.0, 2, **fixed)
            terms = of_edition_1(terms) if edition == 1 else terms
            for guesses in ((0, 0, 0), (1, 1, 0)):
                worst = max(worst, error(terms, world, guesses))
    assert (ALPHA / 3 if edition == 2 else ALPHA / 10) < worst <= ALPHA * (1 + 1e-9)


def test_the_enumeration_sees_a_rule_that_claims_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that lets three times alpha go."""

    def greedy(self: Rule, terms: Terms, level: int, label: int) -> object:
        return plain(self, replace(terms, alpha=3 * terms.alpha), level, label)

    plain = Single.claims_of_one
    monkeypatch.setattr(Single, "claims_of_one", greedy)
    with pytest.raises(AssertionError, match="<="):
        test_no_radius_is_too_large_more_often_than_alpha("mode", "single", 2)
