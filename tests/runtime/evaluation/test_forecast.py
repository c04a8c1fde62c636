"""What a budget costs: arithmetic with known answers, and passes of pilots against runs that were really made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.evaluation.forecast import capacity, passes_spent, pilots_rate
from dualsmooth.runtime.evaluation.results import Result

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "fashion-mnist-all-levels.jsonl"
IMAGES = [toys.image(t, u) for t in (0.1, 0.32, 0.9) for u in (0.1, 0.48, 0.55, 0.9)]


@pytest.fixture(scope="module")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> ds.Smoother:
    return ds.load(toys.two_levels(tmp_path_factory.mktemp("b") / "b"), threads=1)


def results_of(certificates: Iterable[ds.Certificate]) -> list[Result]:
    return [Result(i, 1, "toy", 0.5, certificate) for i, certificate in enumerate(certificates)]


def test_capacity_by_hand() -> None:
    """10 images of 100, 200, … 1,000 passes: 550 in the mean, 900 at most for 9 of 10."""
    found = capacity(np.arange(100, 1001, 100), 7200, rate=1100.0, replica_cores=2, cores=9)
    assert (found.mean, found.high, found.passes) == (550.0, 900, 3_960_000)
    assert found.error == pytest.approx(math.sqrt(sum((100 * i - 550) ** 2 for i in range(1, 11)) / 9 / 10))
    assert found.core_hours == pytest.approx(2.0)  # 3,960,000 / 1,100 = 3,600 s, on 2 cores
    assert (found.replicas, found.hours) == (4, pytest.approx(0.25))
    assert (found.served, found.high_seconds) == (pytest.approx(2.0), pytest.approx(900 / 1100))
    assert [found.replicas_for(requests) for requests in (0.1, 2.0, 2.1)] == [1, 1, 2]


def test_one_image_has_no_standard_error() -> None:
    assert math.isnan(capacity(np.array([5]), 1, rate=1.0, replica_cores=1, cores=1).error)


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"rate": 0.0}, {"rate": math.inf}, {"replica_cores": 0}, {"cores": 1}]
)
def test_impossible_machines_are_refused(wrong: dict[str, float]) -> None:
    given = {"images": 1, "rate": 1.0, "replica_cores": 2, "cores": 2} | wrong
    images = given.pop("images")
    with pytest.raises(ds.InputError, match="expected at least one image"):
        capacity(np.array([5]), images, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["interval", "paper", "multiscale"])
@pytest.mark.parametrize("budget", [ds.Fixed(400), ds.Adaptive(1000, n0=30), ds.AtRadius(0.2, 2000)], ids=str)
def test_a_pilot_with_all_levels_tells_what_the_rule_alone_takes(
    smoother: ds.Smoother, rule: str, budget: ds.Budget
) -> None:
    """Streams have noise of their own, so both runs draw the same votes where both draw any."""
    if rule == "multiscale" and not isinstance(budget, ds.Fixed):
        budget = ds.Fixed(300)
    lean = results_of(smoother.certify_many(IMAGES, budget=budget, rule=rule, seed=1))
    full = results_of(smoother.certify_many(IMAGES, budget=budget, rule=rule, seed=1, all_levels=True))
    taken = [result.certificate.passes for result in lean]
    assert passes_spent(lean).tolist() == passes_spent(full, budget).tolist() == taken
    assert sum(taken) < sum(result.certificate.passes for result in full)


def test_fixed_budgets_scale_exactly_where_the_rule_fixes_the_streams(smoother: ds.Smoother) -> None:
    pilot = results_of(smoother.certify_many(IMAGES, budget=ds.Fixed(200), rule="paper", seed=1))
    longer = smoother.certify_many(IMAGES, budget=ds.Fixed(900, n0=40), rule="paper", seed=1)
    assert passes_spent(pilot, ds.Fixed(900, n0=40)).tolist() == [certificate.passes for certificate in longer]


@pytest.mark.parametrize(
    ("pilot", "wanted"),
    [(ds.Fixed(200), ds.Adaptive(200)), (ds.Adaptive(200), ds.Adaptive(400)), (ds.Adaptive(200), ds.Fixed(200))],
)
def test_what_does_not_follow_is_refused(smoother: ds.Smoother, pilot: ds.Budget, wanted: ds.Budget) -> None:
    results = results_of(smoother.certify_many(IMAGES[:2], budget=pilot, seed=1))
    with pytest.raises(ds.InputError, match=r"only fixed budgets scale; make one with `dualsmooth evaluate"):
        passes_spent(results, wanted)


def test_the_pilots_speed_is_of_all_that_it_drew(smoother: ds.Smoother) -> None:
    results = results_of(smoother.certify_many(IMAGES[:4], budget=ds.Fixed(100), seed=1, all_levels=True))
    assert pilots_rate(results) == sum(r.certificate.passes for r in results) / 2.0
    with pytest.raises(ds.InputError, match="--passes-per-second"):
        pilots_rate([replace(result, seconds=0.0) for result in results])


def test_the_command_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed pilot: both stages at least, and no more than all three levels and the estimator."""
    given = ["plan", str(RESULTS), "--images", "1000", "--budget", "fixed:900", "--passes-per-second", "2000"]
    given += ["--replica-cores", "2", "--cores", "5", "--requests", "10"]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 2000 < found["mean"] < found["high"] <= 4000
    assert found["passes"] == found["mean"] * 1000
    assert (found["replicas"], found["replicas_for_requests"]) == (2, math.ceil(10 * found["mean"] / 2000))
    assert main(given) == 0
    said = capsys.readouterr().out
    assert f"{found['passes']:,} passes" in said
    assert "2,000 passes/s (given) on 2 cores" in said


def test_options_of_the_cost_need_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(RESULTS), "--cores", "4"]) == 2
    assert "--cores without --images" in capsys.readouterr().err
    assert main(["plan", str(RESULTS), "--images", "4", "--requests", "-1"]) == 2
    assert "--requests -1; expected certificates a second" in capsys.readouterr().err
