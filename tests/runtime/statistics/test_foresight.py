"""What no votes could prove is refused before a pass is spent, and what is asked for at the least suffices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from scipy import stats

import dualsmooth as ds
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.budgets import Budget
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.foresight import best_radius, least_prediction, require_possible
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stream

SIGMAS = (0.25, 0.5, 1.0)
RULES = [("interval", None), ("interval", "mode"), ("interval", "quantile:0.3"), ("paper", None), ("single:1", None)]


def terms(budget: Budget, rule: str = "interval", route: str | None = None, alpha: float = 1e-3, **of: Any) -> Terms:
    given = {"sigmas": SIGMAS, "classes": 10, **of}
    return checked_terms(given["sigmas"], 1.0, given["classes"], alpha=alpha, rule=rule, route=route, budget=budget)


def agreed(terms: Terms, level: int) -> float:
    """The radius that is certified where every single vote is for one route and one label."""
    tally = terms.tally()
    for stage, at in ((ESTIMATOR, 0), *((CLASSIFIER, s) for s in range(len(terms.sigmas)))):
        vote = level if stage == ESTIMATOR else 0
        width = len(terms.sigmas) if stage == ESTIMATOR else terms.classes
        for purpose, sizes in ((SELECTION, (terms.budget.selection,)), (ESTIMATION, terms.budget.looks)):
            for size in sizes:
                tally.record(Stream(stage, at, purpose), np.eye(width, dtype=np.int64)[vote] * size)
    return settle(terms, tally).radius


@pytest.mark.parametrize(("rule", "route"), [*RULES, ("multiscale", None)])
@pytest.mark.parametrize("n", [5, 9, 10, 11, 12, 13, 14, 15, 20, 100])
def test_exactly_what_can_certify_something_is_accepted(n: int, rule: str, route: str | None) -> None:
    asked = terms(ds.Fixed(n), rule, route)
    best = max(agreed(asked, level) for level in range(3))
    assert best_radius(asked) == pytest.approx(best, abs=2 * RADIUS_STEP)
    if best > 0:
        require_possible(asked)
    else:
        with pytest.raises(InputError, match=f"fixed:{n} can never certify anything at alpha 0.001"):
            require_possible(asked)


@pytest.mark.parametrize(
    "budget", [ds.Fixed(3), ds.Adaptive(4), ds.AtRadius(0.5, 20), ds.AtRadius(2, 300), ds.AtRadii((0.0, 1.0), 5)]
)
@pytest.mark.parametrize("alpha", [0.1, 1e-3, 1e-9])
@pytest.mark.parametrize(("rule", "route"), RULES[:4])
def test_the_least_that_is_named_is_the_least(budget: Budget, alpha: float, rule: str, route: str | None) -> None:
    try:
        require_possible(terms(budget, rule, route, alpha))
    except InputError as refused:
        least = int(str(refused).rpartition(" ")[2])
        name = str(refused).rpartition("expected ")[2].split()[0]
        given = {key: value for key, value in vars(budget).items() if key not in ("looks", name)}
        require_possible(terms(type(budget)(**{name: least}, **given), rule, route, alpha))
        with pytest.raises(InputError, match=f"at least {least}$"):
            require_possible(terms(type(budget)(**{name: least - 1}, **given), rule, route, alpha))


def test_ten_passes_at_alpha_a_thousandth() -> None:
    """2^-10 is just below 0.001: enough for one claim with all of alpha, and for none with a share of it."""
    require_possible(terms(ds.Fixed(10), sigmas=(0.5,), classes=2))
    with pytest.raises(InputError, match=r"if all votes agreed, the radius would be 0; expected n of at least 11"):
        require_possible(terms(ds.Fixed(10)))


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (ds.AtRadius(2.5, 1_000), "max_passes of at least"),
        (ds.AtRadius(30, 1_000), r"at most 5\.\d+ with any max_passes; ask for a smaller radius"),
        (ds.AtRadii((7.0, 9.0)), r"never certify radius 7 .* ask for a smaller radius"),
    ],
)
def test_a_radius_that_cannot_be_reached(budget: Budget, says: str) -> None:
    with pytest.raises(InputError, match=says):
        require_possible(terms(budget))


def test_a_curve_may_go_further_than_the_budget_can() -> None:
    require_possible(terms(ds.AtRadii((0.5, 9.0))))


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("alpha", [0.1, 0.0625, 0.05, 1e-3, 1e-12])
def test_fewest_passes_that_predict(levels: int, alpha: float) -> None:
    least, share = least_prediction(levels, alpha), alpha / (2 if levels > 1 else 1)
    assert [stats.binomtest(n, n, 0.5).pvalue <= share for n in (least - 1, least)] == [False, True]


@pytest.fixture(scope="module")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> ds.Smoother:
    path: Path = tmp_path_factory.mktemp("foresight") / "bundle"
    toys.write_bundle(path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.2, 0.2])
    return ds.load(path, threads=1)


def test_nothing_is_sampled_first(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*_: Any) -> None:
        raise AssertionError("sampled")

    monkeypatch.setattr(type(smoother.engine), "votes", sampled)
    image = toys.image(0.9, 0.9)
    with pytest.raises(InputError, match="can never certify"):
        smoother.certify(image, budget=ds.Fixed(5))
    with pytest.raises(InputError, match="can never certify"):
        list(smoother.certify_many([image], budget=ds.AtRadius(4, 1000)))
    with pytest.raises(InputError, match=r"n is 11: .* would always abstain; expected n of at least 12"):
        smoother.predict(image, n=11)
