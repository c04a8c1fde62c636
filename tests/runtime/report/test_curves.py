"""What a report shows of a rule comes from the rule, whatever files and curves are called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.evaluation.curves import ORACLE, ORACLE_LEGEND
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.report import Curve, html_report, plot_curves
from dualsmooth.runtime.report.curves import COLOURS, colours
from dualsmooth.runtime.statistics.rules import RULES
from dualsmooth.runtime.statistics.rules.rule import Legend


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    path: Path = tmp_path_factory.mktemp("curves") / "bundle"
    toys.write_bundle(path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4])
    image = toys.image(0.9, 0.9)
    (made,) = ds.load(path, threads=1).certify_many([image], budget=ds.Fixed(200), seed=1, all_levels=True)
    return [Result(0, 1, "toy", 0.1, made)]


def curve(results: list[Result], rule: str, name: str) -> Curve:
    if rule == ORACLE:
        return Curve.of(results, name=name, source="s", rule=rule)
    (result,) = results
    return Curve.of([Result(0, 1, "toy", 0.1, result.certificate.recompute(rule=rule))], name=name, source="s")


def bare(colour: int | None) -> Curve:
    legend = None if colour is None else Legend("n", "m", colour)
    return Curve("c", "s", np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64), legend=legend)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ([0], [0]),
        ([3], [3]),
        ([None], [0]),
        ([None, 0], [1, 0]),
        ([1, 0], [1, 0]),
        ([3, 3, 3, 0], [3, 1, 2, 0]),
        ([0] * (COLOURS + 1), [*range(COLOURS), 1]),
        ([*range(COLOURS), None, None], [*range(COLOURS), 0, 1]),
    ],
)
def test_the_first_curve_of_a_rule_has_its_colour(wanted: list[int | None], given: list[int]) -> None:
    assert colours([bare(colour) for colour in wanted]) == given


@pytest.mark.parametrize("rule", ["interval", "paper", "multiscale", "single:0.5", ORACLE])
@pytest.mark.parametrize("name", ["x", "single: oracle", "interval"])
def test_names_do_not_decide_how_a_curve_looks(results: list[Result], rule: str, name: str) -> None:
    shown = curve(results, rule, name)
    legend = ORACLE_LEGEND if rule == ORACLE else RULES[rule.split(":")[0]].legend
    assert shown.legend == legend
    assert shown.dashed == legend.dashed
    page = html_report([shown])
    data = json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert data["legends"] == [{"name": legend.name, "meaning": legend.meaning, "dashed": legend.dashed}]
    assert (data["runs"][0]["dashed"], data["runs"][0]["colour"]) == (legend.dashed, legend.colour)
    if rule != ORACLE:
        assert data["runs"][0]["oneLevel"] == (1 if rule == "single:0.5" else None)


def test_the_plot_dashes_what_is_a_measure(results: list[Result]) -> None:
    pytest.importorskip("matplotlib")
    dashes = [
        len(re.findall("stroke-dasharray: [0-9]", plot_curves([curve(results, rule, "single: interval")])))
        for rule in ("interval", "single:0.5")
    ]
    assert dashes[0] == 0 < dashes[1]


def test_key_figures_are_about_the_default_rule(results: list[Result]) -> None:
    def lead(*rules: str) -> int:
        page = html_report([curve(results, rule, "interval") for rule in rules])
        return int(re.search(r'"lead":(\d+)', page)[1])  # type: ignore[index]

    assert lead("paper", "interval") == 1
    assert lead(ORACLE, "paper", "single:0.5") == 1
    assert lead(ORACLE) == 0
