"""Budgets: exact probability that any look certifies falsely, and the cost side's promises."""

from __future__ import annotations

import numpy as np
import pytest
from exact_budgets import budget_needs, false_probability

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics import budgets
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Budget, Fixed, geometric_looks, parse_budget

TABLE = [parse_budget(kind.example) for kind in budgets.BUDGETS.values()]
"""Every kind of budget, as its example writes it."""
BUDGETS = [
    *(budget.sized(size) for budget in TABLE for size in (31, 300, 2000)),
    Fixed(1),
    Fixed(300),
    Fixed(2000),
    Adaptive(150),
    Adaptive(300),
    Adaptive(2000),
    Adaptive(2000, 0.05),
    AtRadius(0.5, 31),
    AtRadius(0.5, 300),
    AtRadius(2.0, 2000),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("p0", [0.5, 0.6, 0.8413, 0.95, 0.99])
@pytest.mark.parametrize("alpha", [1e-3, 0.05])
def test_all_looks_together_err_at_most_alpha(budget: Budget, p0: float, alpha: float) -> None:
    """Exact: the bound exceeds the truth at any look, so whatever stops the sampling, with probability <= alpha."""
    assert false_probability(*budget_needs(budget, alpha, p0), p0) <= alpha


@pytest.mark.parametrize("budget", [budget.sized(200) for budget in TABLE], ids=str)
def test_all_looks_together_err_at_most_alpha_where_it_is_hardest(budget: Budget) -> None:
    """The same with p just below a value that the bound takes at some look: one more outcome fails there."""
    alpha = 0.01
    for look, size in enumerate(budget.looks):
        for low in budget.lower(np.arange(size // 2, size + 1, max(1, size // 6)), look, alpha):
            p = float(low) * (1 - 1e-9)
            if p > 0:
                assert false_probability(*budget_needs(budget, alpha, p), p) <= alpha * (1 + 1e-6)


@pytest.mark.parametrize("budget", [Fixed(2000), Adaptive(2000)], ids=str)
def test_most_of_alpha_is_used(budget: Budget) -> None:
    assert false_probability(*budget_needs(budget, 0.01, 0.6), 0.6) >= 0.5 * 0.01


def test_dynamic_programme_agrees_with_simulation() -> None:
    budget, p = Adaptive(2000), 0.6
    looks, needs = budget_needs(budget, 0.05, p)
    votes = np.random.default_rng(5).random((4000, 2000)) < p
    reached = (votes.cumsum(1)[:, looks - 1] >= needs).any(1).mean()
    exact = false_probability(looks, needs, p)
    assert abs(reached - exact) < 4 * np.sqrt(exact / 4000)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_bounds_grow_with_successes_at_every_look(budget: Budget) -> None:
    for look, size in enumerate(budget.looks):
        assert np.all(np.diff(budget.lower(np.arange(size + 1), look, 0.01)) >= 0)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_looks_ascend_to_the_last_pass(budget: Budget) -> None:
    looks = budget.looks
    assert list(looks) == sorted(set(looks))
    assert looks[0] >= 1
    assert looks[-1] == getattr(budget, budget.most)
    assert budget.sized(77).looks[-1] == 77
    assert budget.selection >= 1


@pytest.mark.parametrize("last", [1, 5, 32, 33, 199, 200, 300, 301, 10_000, 100_000])
def test_geometric_looks_keep_their_distance(last: int) -> None:
    looks = np.array(geometric_looks(last, first=32, ratio=1.5))
    assert looks[-1] == last
    assert last < 32 or looks[0] >= 32
    assert np.all(looks[1:] / looks[:-1] >= 1.5 - 1 / looks[:-1])


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_reachable_is_what_more_successes_would_give(budget: Budget) -> None:
    """All successes so far: reachable is the best final bound; before any vote too; never below a fair continuation."""
    last, alpha = len(budget.looks) - 1, 0.01
    best = budget.lower(budget.looks[-1], last, alpha)
    assert budget.reachable(0, -1, alpha) == best
    for look, size in enumerate(budget.looks):
        assert budget.reachable(size, look, alpha) == best
        k = np.arange(size + 1)
        fair = np.floor(k * budget.looks[-1] / size)
        assert np.all(budget.reachable(k, look, alpha) >= budget.lower(fair, last, alpha) - 1e-7)


def test_targets_say_when_to_stop() -> None:
    assert Fixed(100).target(0.3, 0.5) == 0.5
    assert Adaptive(100, 0.1).target(0.3, 0.5) == pytest.approx(0.45)
    assert AtRadius(0.4).target(0.3, 0.5) == 0.4
    assert AtRadius(0.6).target(0.3, 0.5) == 0


@pytest.mark.parametrize(
    "budget",
    [
        *BUDGETS,
        Fixed(100, n0=7),
        Adaptive(1000, 0.0123456789, n0=10),
        AtRadius(0.123456789, n0=3),
        AtRadius(1 / 3, 77, n0=3),
        Adaptive(100, 1e-9),
    ],
    ids=str,
)
def test_text_round_trip(budget: Budget) -> None:
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("budget", TABLE, ids=str)
def test_what_the_table_says_of_it(budget: Budget) -> None:
    """Its form and example are texts of its kind, listed where budgets are explained, and so is its call."""
    assert parse_budget(budget.example) == budget
    assert budget.example.startswith(f"{budget.kind}:")
    assert budget.form.startswith(f"{budget.kind}:")
    assert budgets.BUDGETS[budget.kind] is type(budget)
    assert budget.form in budgets.FORMS
    assert budget.call in budgets.CALLS
    assert budget.call.startswith(type(budget).__name__)
    assert f"{budget.looks[-1]:,}" in budget.spends
    asked = budget.decides
    assert asked is None or list(asked) == sorted(set(asked))
    assert budget.asked == max(RADIUS_STEP, asked[0] if asked else 0)


@pytest.mark.parametrize("budget", TABLE, ids=str)
@pytest.mark.parametrize("wrong", ["", ":", ":1:1:1:1", ":nan", ":ten", ":1:0:0", ":-1"])
def test_other_texts_of_its_kind_are_refused(budget: Budget, wrong: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        parse_budget(budget.kind + wrong)
    assert "\n" not in str(caught.value)


def test_all_are_named_where_none_fits() -> None:
    with pytest.raises(InputError) as caught:
        parse_budget("best:10")
    assert all(budget.form in str(caught.value) for budget in TABLE)
    assert {budget.kind for budget in TABLE} >= {"fixed", "adaptive", "at-radius", "at-radii"}


def test_text_with_defaults() -> None:
    assert parse_budget("fixed:10000") == Fixed(10_000)
    assert parse_budget("adaptive:100000:0.05") == Adaptive(100_000, 0.05)
    assert parse_budget("fixed:1e4:1e2") == Fixed(10_000, 100)
    assert parse_budget("at-radius:0.5:1.5e3") == AtRadius(0.5, 1_500)
    assert parse_budget("at-radius:0.5") == AtRadius(0.5, 100_000)
    assert parse_budget("at-radius:0.5:100000") == AtRadius(0.5, 100_000)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "fixed",
            "fixed:",
            "fixed:0",
            "fixed:-1",
            "fixed:ten",
            "fixed:1e-4",
            "fixed:1e400",
            "fixed:nan",
            "fixed:1.5",
            "fixed:10:10:10",
        ),
        *("fixed:10:0", "fixed:1000000000", "adaptive:100:1", "adaptive:100:-0.1", "adaptive:100:nan", "adaptive:0:0"),
        *("at-radius:0", "at-radius:-1", "at-radius:nan", "at-radius:inf", "at-radius:1:0", "Fixed:10", "best:10"),
        *("adaptive:100:0:100:1", "at-radius:1:100:1:1", "fixed:" + "9" * 5000),
    ],
)
def test_unusable_budgets_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(10.0),  # type: ignore[arg-type]
        lambda: Fixed(True),
        lambda: Fixed("10"),  # type: ignore[arg-type]
        lambda: Fixed(10, n0=0),
        lambda: Adaptive(10, tolerance=1.0),
        lambda: AtRadius("0.5"),  # type: ignore[arg-type]
        lambda: Adaptive(10, tolerance="0.1"),  # type: ignore[arg-type]
    ],
)
def test_unusable_arguments_are_refused(make: object) -> None:
    with pytest.raises(InputError, match="expected"):
        make()  # type: ignore[operator]
