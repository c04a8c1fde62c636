"""How long it will take: the truth lies in the range, where every pass takes as long."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.outlook import ENOUGH, PATIENCE, Outlook, passes_between
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.statistics.certification import certification, checked_terms
from dualsmooth.runtime.statistics.rules.rule import Terms

BUDGETS = (ds.Fixed(1000), ds.Adaptive(1000, 0.0), ds.AtRadius(0.2, 1000), ds.AtRadii((0.1, 0.3), 1000))
SECONDS = {"s": 1, "min": 60, "h": 3600}


def terms_of(rule: str, budget: ds.Budget) -> Terms:
    return checked_terms((0.25, 0.5, 1.0), 1.0, 4, alpha=1e-2, rule=rule, route=None, budget=budget)


def passes(terms: Terms, rng: np.random.Generator, *, all_levels: bool = False) -> int:
    """What one image takes, of any difficulty."""
    tally, shares = terms.tally(), {}
    for requests in certification(terms, tally, all_levels=all_levels):
        for stream, until in requests:
            have = tally.counts(stream)
            hard = rng.choice([0.05, 0.2, 1.0, 20.0])
            shares.setdefault(stream[:2], rng.dirichlet(np.full(len(have), hard)))
            tally.record(stream, have + rng.multinomial(until - int(have.sum()), shares[stream[:2]]))
    return tally.total()


def all_within(terms: Terms) -> tuple[int, list[int]]:
    """The passes of 20 images, which are within what is said of them, and the least that is said."""
    rng = np.random.default_rng(0)
    least, most = passes_between(terms, all_levels=False)
    seen = [passes(terms, rng) for _ in range(20)]
    assert least <= min(seen)
    assert max(seen) <= most
    low, high = passes_between(terms, all_levels=True)
    assert low == high == passes(terms, rng, all_levels=True)
    return least, seen


@pytest.mark.parametrize("rule", ["interval", "paper", "multiscale", "single:0.5"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_no_image_takes_fewer_or_more(rule: str, budget: ds.Budget) -> None:
    try:
        terms = terms_of(rule, budget)
    except InputError:
        pytest.skip("the rule does not take this budget")
    low, seen = all_within(terms)
    assert min(seen) <= 1.5 * low


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("rule", ["confidence:0.6", "fallback:0.6"])
def test_a_cascade_takes_no_fewer_or_more(rule: str, budget: ds.Budget) -> None:
    all_within(terms_of(rule, budget))


def said(images: int, terms: Terms, rate: float, *, seed: int = 0) -> tuple[str, float]:
    """What is said about images that are certified one after another in batches of 250 passes, and the truth [s]."""
    rng, meter, lines = np.random.default_rng(seed), Meter(), []
    outlook = Outlook(images, passes_between(terms, all_levels=False), lines.append)
    for _ in range(images):
        taken = passes(terms, rng)
        for _ in range(0, taken, 250):
            meter.passes += 250
            meter.seconds = meter.passes / rate
            outlook.look(meter)
        outlook.finished(taken)
    assert len(lines) <= 1
    return "".join(lines), meter.seconds


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_truth_lies_in_the_range(budget: ds.Budget, seed: int) -> None:
    """In whole units, and as far as the first images can tell about the others."""
    line, truth = said(200, terms_of("interval", budget), 1_000.0, seed=seed)
    low, high, unit = re.match(r"(?:about|up to) ([\d.]+)(?: to ([\d.]+))? (s|min|h): 200 images x ", line).groups()
    assert line.startswith("up") or (float(low) - 0.5) * SECONDS[unit] <= truth
    assert truth <= (float(high or low) + 0.5) * SECONDS[unit]
    assert "at 1,000 passes/s" in line


def told(images: int, between: tuple[int, int], say, *looks: tuple[int, float]) -> Outlook:
    """An outlook after a slow first batch, and meters at these passes and seconds beyond it."""
    outlook = Outlook(images, between, say)
    for passes, seconds in ((0, 0.0), *looks):
        outlook.look(Meter(passes=256 + passes, seconds=30.0 + seconds))
    return outlook


def test_short_work_needs_no_forecast() -> None:
    assert said(10, terms_of("single:0.5", ds.Fixed(1000)), 2_000.0)[0] == ""


def test_a_wide_range_waits_for_finished_images_but_not_for_long() -> None:
    lines: list[str] = []
    outlook = told(100, (100, 100_000), lines.append, (2_000, 2.0))
    assert not lines
    for _ in range(ENOUGH):
        outlook.finished(1_000)
    outlook.look(Meter(passes=8_256, seconds=38.0))
    assert lines == ["about 2 min: 100 images x 1,000 passes, at 1,000 passes/s in the first 8 s"]
    told(1, (100, 100_000), lines.append, (10_000, PATIENCE))
    assert lines[1:] == ["up to 2 min: 1 image x 100 to 100,000 passes, at 1,000 passes/s in the first 10 s"]


def test_exact_work_is_one_figure() -> None:
    lines: list[str] = []
    told(500, (40_400, 40_400), lines.append, (16_500, 0.5), (33_000, 1.0))
    assert lines == ["about 10 min: 500 images x 40,400 passes, at 33,000 passes/s in the first 1 s"]
    told(50_000, (20_200, 40_400), lines.append, (33_000, 1.0))
    assert lines[1].startswith("about 8.5 to 17.0 h: 50,000 images x 20,200 to 40,400 passes")
