"""The cascade from the router's level: its geometry against exact answers along a line, its certificates by enumeration
of all votes of the router and both levels, and what it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from enumerated import LINE, by_hand, hardest_ends, nearest_other
from scipy import special, stats

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.budgets import AtRadius, Fixed
from dualsmooth.runtime.statistics.certification import certification, checked_terms, settle
from dualsmooth.runtime.statistics.routes import MODE, quantile_of
from dualsmooth.runtime.statistics.rules import fallback, rule_named
from dualsmooth.runtime.statistics.rules.fallback import Fallback
from dualsmooth.runtime.statistics.rules.plan import Plan
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream

SIGMAS, SIGMA_E = (0.25, 0.5, 1.0), 1.0
N, ALPHA = 7, 0.1


@dataclass(frozen=True)
class World:
    """The input at 0 of a line that is cut into intervals: each of `cuts`' rows for the classes at a level (class c
    between cut c - 1 and cut c), `router` for the estimator's levels; `least` for all levels above the smallest, or
    for each."""

    cuts: tuple[tuple[float, ...], ...]
    router: tuple[float, ...]
    route_kind: str
    least: tuple[float, ...]

    @property
    def sigmas(self) -> tuple[float, ...]:
        return SIGMAS[-len(self.cuts) :]

    def shares(self, level: int, x: np.ndarray) -> np.ndarray:
        """The probabilities [len(x), classes] of a vote at a level; level -1: of the estimator's [len(x), levels]."""
        cuts, sigma = (self.router, SIGMA_E) if level < 0 else (self.cuts[level], self.sigmas[level])
        below = special.ndtr((np.array(cuts) - x[:, None]) / sigma)
        return np.diff(below, axis=1, prepend=0.0, append=1.0)

    def begins(self, x: np.ndarray) -> np.ndarray:
        """The router's level."""
        shares = self.shares(-1, x)
        if self.route_kind == MODE:
            return shares.argmax(1)
        return (shares.cumsum(1) >= quantile_of(self.route_kind)).argmax(1)

    def answers(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The level that answers, and its class: the definition, level by level from the smallest."""
        begins, level = self.begins(x), np.zeros(len(x), int)
        label = self.shares(0, x).argmax(1)
        for s in range(1, len(self.cuts)):
            shares = self.shares(s, x)
            here = (begins >= s) & (shares.max(1) >= (self.least * len(self.cuts))[s - 1])
            level, label = np.where(here, s, level), np.where(here, shares.argmax(1), label)
        return level, label

    def true_radius(self, label: int, line: np.ndarray = LINE) -> float:
        """Distance from 0 to the nearest point of the line where the answer is another one."""
        return nearest_other(self.answers(line)[1], label, line)


def terms_of(world: World, n: int = N, alpha: float = ALPHA) -> Terms:
    return checked_terms(
        world.sigmas, SIGMA_E, 3, alpha=alpha, rule=f"fallback:{'/'.join(map(str, world.least))}",
        route=world.route_kind, budget=Fixed(n, n0=12),
    )  # fmt: skip


def plan_of(world: World) -> Plan:
    """The plan of the true guesses."""
    zero, terms = np.zeros(1), terms_of(world)
    assert isinstance(terms.rule, Fallback)
    (level,), (label,) = world.answers(zero)
    return terms.rule.plan(terms, int(level), int(label), int(world.begins(zero)[0]))


def random_world(generator: np.random.Generator, levels: int, route_kind: str) -> World:
    def cuts(count: int, width: float) -> tuple[float, ...]:
        return tuple(np.sort(generator.normal(0, width, count) + generator.choice([-1.5, 0.0, 1.5]) * width))

    count = int(generator.choice([1, levels - 1]))
    least = tuple(map(float, generator.choice([0.3, 0.5, 0.6, 0.8], count)))
    rows = tuple(cuts(2, generator.choice([0.3, 1.0, 2.0])) for _ in range(levels))
    return World(rows, cuts(levels - 1, generator.choice([0.5, 1.5])), route_kind, least)


@pytest.mark.parametrize("route_kind", ["median", "quantile:0.3", "quantile:0.8", MODE])
@pytest.mark.parametrize("levels", [2, 3])
def test_with_exact_probabilities_the_radius_is_never_above_the_true_one(levels: int, route_kind: str) -> None:
    generator, positive, near = np.random.default_rng(levels), 0, []
    for _ in range(300):
        world = random_world(generator, levels, route_kind)
        plan, shares = plan_of(world), [world.shares(s, np.zeros(1))[0] for s in range(-1, levels)]
        exact = []
        for claim in plan.claims:
            votes = shares[0 if claim.stage == ESTIMATOR else claim.level + 1]
            inside = votes[list(claim.event)].sum()
            exact.append(1 - np.delete(votes, claim.event).max() if claim.rivals else inside)
        radius, truth = plan.radius(np.clip(exact, 1e-12, 1 - 1e-12)), world.true_radius(plan.label, LINE[::10])
        assert radius <= truth + 1.1e-3, world  # the step of the line
        positive += radius > 0.05
        near += [radius / truth] if 0.05 < truth < 3 else []
    assert positive > 60
    assert np.mean(near) > 0.5  # it is no trivial bound


def counts_of(world: World, width: int) -> list[np.ndarray]:
    every = product(range(N + 1), repeat=width - 1)
    return [np.array([*head, N - sum(head)]) for head in every if sum(head) <= N]


def error(world: World, guesses: tuple[int, int, int]) -> float:
    """The exact probability that a certified radius is above the true one, over all counts of the router and both
    levels. `guesses`: what selection votes say of the router, the smaller and the larger level; -1: nothing sure."""
    zero, terms, truths = np.zeros(1), terms_of(world), [world.true_radius(label) for label in range(3)]
    streams = [Stream(ESTIMATOR, 0, ESTIMATION), *(Stream(CLASSIFIER, s, ESTIMATION) for s in (0, 1))]
    counts = [counts_of(world, width) for width in (2, 3, 3)]
    chances = [stats.multinomial.pmf(counts[s + 1], N, world.shares(s, zero)[0]) for s in (-1, 0, 1)]
    assert isinstance(terms.rule, Fallback)
    level = 1 if guesses[0] == 1 and guesses[2] >= 0 else 0
    plan = terms.rule.plan(terms, level, guesses[1 + level], guesses[0])
    shares = np.array([claim.alpha for claim in plan.claims])
    lower = np.stack([lower_bound(np.full(len(shares), k), N, shares) for k in range(N + 1)])
    of = [0 if c.stage == ESTIMATOR else c.level + 1 for c in plan.claims]
    hits = [[c.hits(v) for v in counts[of[i]]] for i, c in enumerate(plan.claims)]
    total, checked = 0.0, 0
    for places in product(*(range(len(c)) for c in counts)):
        chance = math.prod(chances[s][p] for s, p in enumerate(places))
        if chance < 1e-12:
            continue
        radius = plan.radius(np.array([lower[hits[i][places[of[i]]], i] for i in range(len(shares))]))
        total += chance * (radius > truths[plan.label])
        if checked < 3 and radius > 0:  # the same as what a certificate says
            checked += 1
            tally = terms.tally()
            for guess, stream, place, group in zip(guesses, streams, places, counts, strict=True):
                width = group[0].size
                chosen = np.full(width, 12 // width) if guess < 0 else 12 * np.eye(width, dtype=np.int64)[guess]
                tally.record(stream._replace(purpose=SELECTION), chosen)
                tally.record(stream, group[place])
            outcome = settle(terms, tally)
            assert (outcome.route, outcome.guess) == (level, plan.label)
            assert outcome.radius == pytest.approx(radius, abs=2e-6)
    return total


def worlds(least: float) -> list[World]:
    """Ends just below what some count of votes proves at shares of alpha that the rule uses: where claims err most."""
    far, shares = 9.0, (0.9, 0.6, 0.3, 0.1)
    ends = hardest_ends((N,), N, [part * ALPHA for part in shares])
    cut = float(special.ndtri(least))
    found = []
    for end in ends:
        small = ((-far, end / 2), (-far - 1, -far))  # class 1 on one side, or surely class 2
        large = ((-far, far), (-far, max(end, cut + 1e-3)), (-far, end))
        routers = (-far, -end, end)  # surely the larger level; hardly; hardly not
        found += [World((a, b), (r,), "median", (least,)) for a in small for b in large for r in routers]
    return found


GUESSES = ((1, 1, 1), (1, 1, -1), (0, 1, 1), (0, 1, 2), (1, 2, 1))


@pytest.mark.parametrize("least", [0.5, pytest.param(0.6, marks=pytest.mark.slow)])
def test_no_radius_is_too_large_more_often_than_alpha(least: float) -> None:
    worst = max(error(world, guesses) for world in worlds(least) for guesses in GUESSES)
    assert ALPHA / 3 < worst <= ALPHA * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        "every claim has four times its alpha",
        "no other class need be silent",
        "asked at no margin",
        "no router",
        "levels in the wrong order",
    ],
)
def test_what_claims_too_much_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wrong.startswith("every"):
        for name in ("ROUTER", "LABEL", "SILENT", "RIVAL_SHARE"):
            monkeypatch.setattr(fallback, name, 4 * getattr(fallback, name))
        with pytest.raises(AssertionError, match="<="):
            test_no_radius_is_too_large_more_often_than_alpha(0.5)
        return
    if wrong == "levels in the wrong order":
        plain_cuts = Fallback.cuts
        monkeypatch.setattr(
            Fallback, "cuts", lambda rule, levels: plain_cuts(replace(rule, least=rule.least[::-1]), levels)
        )
    elif wrong == "no router":
        monkeypatch.setattr(Plan, "exclusion", lambda plan, lower: np.full(len(plan.sigmas), math.inf))
    else:
        plain, rule = Fallback.plan, Fallback((0.99 if wrong.startswith("no other") else 0.05,))
        monkeypatch.setattr(Fallback, "plan", lambda *given: replace(plain(*given), rule=rule))  # type: ignore[call-arg]
    with pytest.raises(AssertionError, match="World"):
        test_with_exact_probabilities_the_radius_is_never_above_the_true_one(3, "median")


def test_the_radius_is_worked_out_by_hand() -> None:
    """The router begins at the largest level, which is not sure enough; the middle one answers. The smallest one, which
    says otherwise, is not come to as far as the router does not name it and the middle one is sure enough."""
    terms = checked_terms(SIGMAS, SIGMA_E, 3, alpha=0.01, rule="fallback:0.6", route=None, budget=Fixed(1000, n0=10))
    tally = terms.tally()
    selection = ([0, 2, 8], [0, 0, 10], [0, 10, 0], [4, 3, 3])
    bounded = ([10, 190, 800], [0, 100, 900], [30, 950, 20], [350, 400, 250])
    streams = [(ESTIMATOR, 0), *((CLASSIFIER, s) for s in range(3))]
    for (stage, level), first, second in zip(streams, selection, bounded, strict=True):
        tally.record(Stream(stage, level, SELECTION), np.array(first))
        tally.record(Stream(stage, level, ESTIMATION), np.array(second))
    found, cut = settle(terms, tally), float(special.ndtri(0.6))
    top, rival = by_hand(950, 1000, 0.003), by_hand(970, 1000, 0.001)
    asked = min(by_hand(990, 1000, 0.0015), 0.5 * (top - cut))
    silent = by_hand(650, 1000, 0.009) + cut
    own = 0.5 * max(top, (top + rival) / 2)
    assert (found.label, found.route) == (1, 1)
    assert found.exclusion == pytest.approx([asked, 0.5 * (rival + cut), silent], abs=2e-6)
    assert found.radius == pytest.approx(min(asked, max(own, 0.5 * (rival + cut)), silent), abs=2e-6)


def test_it_asks_for_no_level_above_the_routers_that_cannot_matter() -> None:
    budget = AtRadius(0.5, 1000, n0=10)
    terms = checked_terms(SIGMAS, SIGMA_E, 3, alpha=0.01, rule="fallback", route=None, budget=budget)
    tally = terms.tally()
    for requests in certification(terms, tally):
        for stream, until in requests:
            tally.record(stream, until * np.eye(3, dtype=np.int64)[1])
    assert settle(terms, tally).radius >= 0.5
    assert Stream(CLASSIFIER, 2, ESTIMATION) not in tally.looks


def test_its_name_has_a_probability() -> None:
    assert [str(rule_named(text, SIGMAS)) for text in ("fallback", "fallback:0.70")] == ["fallback:0.5", "fallback:0.7"]
    assert str(rule_named("fallback:0.50/0.7", SIGMAS)) == "fallback:0.5/0.7"
    with pytest.raises(InputError, match=r"expected fallback:P with P from 0\.01 to 0\.99"):
        rule_named("fallback:1", SIGMAS)
