"""Rules: on step networks on the line, with exact probabilities, no radius passes the first change of label."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lines import Line, Steps

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rules import Plan, check_rule, guess_route, make_plan, single_level, single_rule

ROUTES, RULES = ("median", "mode"), ("interval", "paper")
SIDES = np.concatenate([-np.linspace(1, 0, 300, endpoint=False), np.linspace(0, 1, 301)])


def plan_of(line: Line, rule: str, kind: str, route: int, label: int) -> Plan:
    return make_plan(rule, kind, sigmas=line.sigmas, sigma_e=line.sigma_e, route=route, label=label, alpha=0.01)


def exact_radius(line: Line, plan: Plan) -> float:
    return plan.radius(np.array([line.exact(claim) for claim in plan.claims]))


def truth(line: Line, kind: str) -> tuple[int, int]:
    """Route and label at 0."""
    return int(line.routes(np.zeros(1), kind)[0]), int(line.labels(np.zeros(1), kind)[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ROUTES)
def test_no_label_changes_inside_the_radius(rule: str, kind: str) -> None:
    """1,500 random cases; a third start from a wrong guess of route or label, which may only cost radius."""
    rng = np.random.default_rng([11, RULES.index(rule), ROUTES.index(kind)])
    certified = 0
    for _ in range(1500):
        line = Line.random(rng)
        route, label = truth(line, kind)
        if rng.random() < 1 / 3:
            route, label = int(rng.integers(len(line.sigmas))), int(rng.integers(line.classifiers[0].count))
        radius = exact_radius(line, plan_of(line, rule, kind, route, label))
        if radius > 1e-9:
            certified += 1
            assert np.all(line.labels(radius * (1 - 1e-6) * SIDES, kind) == label)
    assert certified > 400


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
        radius = exact_radius(line, plan_of(line, "interval", "median", *truth(line, "median")))
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
        plan = plan_of(line, "paper", "mode", 0, 0)
        assert exact_radius(line, plan) == pytest.approx(min(flip, change), abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("flip", [0.05, 0.3, 1.1])
def test_a_route_flip_limits_the_radius_unless_both_sides_agree(rule: str, kind: str, flip: float) -> None:
    """The route flips at exactly `flip`. Behind it, the other expert's label changes at `behind`."""
    estimator = Steps(np.array([flip]), np.array([0, 1]), 2)
    mine = Steps(np.array([5.0]), np.array([0, 1]), 2)

    def radius(other: Steps) -> float:
        line = Line(estimator, [mine, other], (0.5, 1.0), 0.8)
        return exact_radius(line, plan_of(line, rule, kind, 0, 0))

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
            exact_radius(line, plan_of(line, rule, kind, route, label)) for rule in ("paper", "interval")
        )
        assert interval >= paper - 1e-9


@pytest.mark.parametrize("rule", ["interval", "paper", "single:0.5"])
@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
def test_alpha_shares_add_up_to_alpha(rule: str, kind: str, count: int) -> None:
    sigmas = tuple(0.5 + s / 10 for s in range(count))
    for route in range(count):
        plan = make_plan(rule, kind, sigmas=sigmas, sigma_e=1.0, route=route, label=3, alpha=0.01)
        assert math.fsum(claim.alpha for claim in plan.claims) == pytest.approx(0.01, rel=1e-12)
        assert all(claim.alpha > 0 for claim in plan.claims)
        assert len({(c.stage, c.level, c.event) for c in plan.claims}) == len(plan.claims)


@pytest.mark.parametrize("kind", ROUTES)
def test_no_bounds_mean_no_radius(kind: str) -> None:
    for rule in RULES:
        plan = make_plan(rule, kind, sigmas=(0.25, 0.5, 1.0), sigma_e=1.0, route=1, label=0, alpha=0.01)
        assert plan.radius(np.zeros(len(plan.claims))) == 0
        assert plan.radius(np.full(len(plan.claims), 0.5)) == 0


def test_radius_grows_with_every_bound() -> None:
    rng = np.random.default_rng(14)
    for kind in ROUTES:
        plan = make_plan("interval", kind, sigmas=(0.25, 0.5, 1.0), sigma_e=1.0, route=1, label=0, alpha=0.01)
        for _ in range(200):
            lower = rng.uniform(0, 1, len(plan.claims))
            assert plan.radius(np.minimum(lower + rng.uniform(0, 0.2, len(lower)), 1 - 1e-9)) >= plan.radius(lower)


@pytest.mark.parametrize(
    ("votes", "median", "mode"),
    [([5, 3, 2], 0, 0), ([4, 3, 3], 1, 0), ([0, 5, 5], 1, 1), ([0, 4, 6], 2, 2), ([1, 1, 1], 1, 0), ([0, 0, 9], 2, 2)],
)
def test_guess_route(votes: list[int], median: int, mode: int) -> None:
    counts = np.array(votes)
    assert (guess_route(counts, "median"), guess_route(counts, "mode")) == (median, mode)


def test_default_routes() -> None:
    sigmas = (0.25, 0.5)
    assert check_rule("interval", None, sigmas) == ("interval", "median")
    assert check_rule("paper", None, sigmas) == ("paper", "mode")
    assert check_rule("paper", "median", sigmas) == ("paper", "median")


@pytest.mark.parametrize(
    ("rule", "route"),
    [("best", None), ("", None), ("single:", None), ("single:0.3", None), ("single:x", None), ("interval", "mean")],
)
def test_unknown_rules_and_routes_are_refused(rule: str, route: str | None) -> None:
    with pytest.raises(InputError, match="expected"):
        check_rule(rule, route, (0.25, 0.5))


@pytest.mark.parametrize("sigma", [0.25, 1.0, 0.1234567, 1 / 3, 1e-7])
def test_a_single_rule_names_its_level_exactly(sigma: float) -> None:
    assert single_level(single_rule(sigma), (sigma / 2, sigma, sigma * 2)) == 1
