"""Rules: on step networks on the line, with exact probabilities, no radius passes the first change of label."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from lines import Line, Steps
from plans import plan_of
from scipy import special

from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.rules.plan import Claim, Plan

ROUTES, RULES = ("median", "mode", "quantile:0.3", "quantile:0.8"), ("interval", "paper")
THREE: dict[str, Any] = {"sigmas": (0.25, 0.5, 1.0), "sigma_e": 1.0, "classes": 4, "alpha": 0.01}
SIDES = np.concatenate([-np.linspace(1, 0, 300, endpoint=False), np.linspace(0, 1, 301)])


def plan_on(line: Line, rule: str, kind: str, route: int, label: int) -> Plan:
    fixed = {"sigmas": line.sigmas, "sigma_e": line.sigma_e, "classes": line.classifiers[0].count, "alpha": 0.01}
    return plan_of(rule, kind, route=route, label=label, **fixed)


def exact_radius(line: Line, plan: Plan) -> float:
    return plan.radius(np.array([line.exact(claim) for claim in plan.claims]))


def truth(line: Line, kind: str) -> tuple[int, int]:
    """Route and label at 0."""
    return int(line.routes(np.zeros(1), kind)[0]), int(line.labels(np.zeros(1), kind)[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ROUTES)
def test_no_label_changes_inside_the_radius(rule: str, kind: str) -> None:
    """1,000 random cases; a third start from a wrong guess of route or label, which may only cost radius."""
    rng = np.random.default_rng([11, RULES.index(rule), ROUTES.index(kind)])
    certified = 0
    for _ in range(1000):
        line = Line.random(rng)
        route, label = truth(line, kind)
        if rng.random() < 1 / 3:
            route, label = int(rng.integers(len(line.sigmas))), int(rng.integers(line.classifiers[0].count))
        radius = exact_radius(line, plan_on(line, rule, kind, route, label))
        if radius > 1e-9:
            certified += 1
            assert np.all(line.labels(radius * (1 - 1e-6) * SIDES, kind) == label)
    assert certified > 250


def true_radius(line: Line, kind: str, reach: float) -> float:
    """Distance from 0 to the nearest other label, by a dense search up to `reach`."""
    x = reach * np.concatenate([SIDES[:300:-1], SIDES[:300]])
    other = np.abs(x[line.labels(x, kind) != truth(line, kind)[1]])
    return float(other.min()) if other.size else math.inf


def test_interval_radius_is_tight() -> None:
    """Median of certified over true radius, over cases whose true radius is within 3 certified ones."""
    rng = np.random.default_rng(12)
    ratios = []
    for _ in range(600):
        line = Line.random(rng)
        radius = exact_radius(line, plan_on(line, "interval", "median", *truth(line, "median")))
        if radius > 1e-3:
            ratios.append(radius / min(true_radius(line, "median", 3 * radius), 3 * radius))
    assert len(ratios) > 250
    assert max(ratios) <= 1 + 1e-2
    assert np.median(ratios) > 0.95


def test_paper_radius_is_exact_for_half_lines() -> None:
    """Two levels, one step each: the radius is the smaller of the two distances, as Cohen proves."""
    for flip, change in ((0.4, 0.9), (0.9, 0.4)):
        step, never = Steps(np.array([change]), np.array([0, 1]), 2), Steps(np.array([99.0]), np.array([0, 1]), 2)
        line = Line(Steps(np.array([flip]), np.array([0, 1]), 2), [step, never], (0.25, 1.0), 0.7)
        plan = plan_on(line, "paper", "mode", 0, 0)
        assert exact_radius(line, plan) == pytest.approx(min(flip, change), abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["median", "mode"])
@pytest.mark.parametrize("flip", [0.05, 0.3, 1.1])
def test_a_route_flip_limits_the_radius_unless_both_sides_agree(rule: str, kind: str, flip: float) -> None:
    """The route flips at exactly `flip`. Behind it, the other expert's label changes at `behind`."""
    estimator = Steps(np.array([flip]), np.array([0, 1]), 2)
    mine = Steps(np.array([5.0]), np.array([0, 1]), 2)

    def radius(other: Steps) -> float:
        line = Line(estimator, [mine, other], (0.5, 1.0), 0.8)
        return exact_radius(line, plan_on(line, rule, kind, 0, 0))

    disagrees = Steps(np.array([-9.0]), np.array([0, 1]), 2)
    assert radius(disagrees) == pytest.approx(flip, abs=1e-6)
    assert radius(disagrees) <= flip
    for behind in (flip + 0.2, 2.5):
        agrees = Steps(np.array([behind]), np.array([0, 1]), 2)
        expected = behind if rule == "interval" else flip
        assert radius(agrees) == pytest.approx(expected, abs=1e-6)
        assert radius(agrees) <= behind


@pytest.mark.parametrize("kind", ROUTES)
def test_interval_is_never_below_paper(kind: str) -> None:
    """With exact probabilities the interval rule proves all that the paper's rule proves."""
    rng = np.random.default_rng(13)
    for _ in range(300):
        line = Line.random(rng)
        route, label = truth(line, kind)
        paper, interval = (
            exact_radius(line, plan_on(line, rule, kind, route, label)) for rule in ("paper", "interval")
        )
        assert interval >= paper - 1e-9


@pytest.mark.parametrize("rule", ["interval", "paper", "single:0.5"])
@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("classes", [2, 5])
def test_no_level_spends_more_than_alpha(rule: str, kind: str, count: int, classes: int) -> None:
    """Each level rests on its own claims alone, whose shares add up to at most alpha; the guessed route's spends
    all."""
    sigmas = tuple(0.5 + s / 10 for s in range(count))
    for route in range(0, count, 1 if count < 9 else 21):
        plan = plan_of(rule, kind, sigmas=sigmas, sigma_e=1.0, classes=classes, route=route, label=1, alpha=0.01)
        assert all(claim.alpha > 0 for claim in plan.claims)
        assert len({(c.stage, c.level, c.event, c.rivals) for c in plan.claims}) == len(plan.claims)
        for level in range(count):
            spent = math.fsum(claim.alpha for claim in bearing_on(plan, level))
            assert spent <= 0.01 * (1 + 1e-12)
            if level == route or not plan.routed or rule == "interval":
                assert spent == pytest.approx(0.01 if level == route or plan.routed else 0.0, rel=1e-12)


def bearing_on(plan: Plan, level: int) -> list[Claim]:
    """The claims that max(e_s, A_s) of a level rests on: those that change it when their bound does.

    Of nested claims on the estimator only the largest event counts: the smaller ones have no larger share (checked
    here), so their bounds are never larger.
    """
    router = [claim for claim in plan.claims if claim.stage == "estimator"]
    for small, large in combinations(sorted(router, key=lambda c: len(c.event)), 2):
        assert not set(small.event) < set(large.event) or small.alpha <= large.alpha or plan.route_kind == "mode"
    labels = [claim for claim in plan.claims if (claim.stage, claim.level) == ("classifier", level)]
    if level == plan.route or not plan.routed:
        return labels
    if plan.route_kind == "mode":  # the guessed route's own claim, and the one against this level
        against = tuple(c for c in range(len(plan.sigmas)) if c != level)
        return [c for c in router if c.event in {(plan.route,), against}] + labels
    event = tuple(range(level)) if level > plan.route else tuple(range(level + 1, len(plan.sigmas)))
    (own,) = [claim for claim in router if claim.event == event]
    return [own, *labels]


def test_top_class_against_each_other_class() -> None:
    """A class with 40 % of the votes is certified where no other has more than 15 %; with two classes nothing
    changes."""
    plan = plan_of("single:1", "mode", sigmas=(1.0,), sigma_e=1.0, classes=5, route=0, label=2, alpha=0.01)
    top, rivals = plan.claims
    counts = np.array([150, 150, 400, 150, 150])
    assert (top.hits(counts), rivals.hits(counts)) == (400, 850)
    lower = lower_bound([400, 850], 1000, [top.alpha, rivals.alpha])
    assert plan.radius(lower) == pytest.approx(float(special.ndtri(lower).sum()) / 2)
    assert plan.radius(lower) > 0.25
    (only,) = plan_of("single:1", "mode", sigmas=(1.0,), sigma_e=1.0, classes=2, route=0, label=1, alpha=0.01).claims
    assert only.alpha == 0.01


@pytest.mark.parametrize("kind", ROUTES)
def test_no_bounds_mean_no_radius(kind: str) -> None:
    for rule in RULES:
        plan = plan_of(rule, kind, **THREE, route=1, label=0)
        assert plan.radius(np.zeros(len(plan.claims))) == 0
        assert plan.radius(np.full(len(plan.claims), 0.5)) == 0


def test_radius_grows_with_every_bound() -> None:
    rng = np.random.default_rng(14)
    for kind in ROUTES:
        plan = plan_of("interval", kind, **THREE, route=1, label=0)
        for _ in range(200):
            lower = rng.uniform(0, 1, len(plan.claims))
            assert plan.radius(np.minimum(lower + rng.uniform(0, 0.2, len(lower)), 1 - 1e-9)) >= plan.radius(lower)
