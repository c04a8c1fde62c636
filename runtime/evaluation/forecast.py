"""Plan a budget from a pilot: what certified accuracy would N passes give? Approximations, never a certificate.

Seferis, Kollias, Cheng 2024 ("Estimating the Robustness Radius for Randomized Smoothing with 100x Sample Efficiency",
arXiv 2404.17371) observe that few passes already tell what many would certify. Here every image's vote shares are
taken from the pilot, scaled to N passes, and certified by the rule itself; their closed formula for the average
certified radius, ACR(N) / ACR(inf) = 1 - 1.64 z / sqrt(N) with z = Phi^-1(1 - alpha/2), is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.statistics.accuracy import average_certified_radius
from dualsmooth.runtime.statistics.bounds import normal_quantile
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import settle
from dualsmooth.runtime.statistics.votes import ESTIMATION, Counts, Tally


@dataclass(frozen=True)
class Forecast:
    """Predicted radii [images] at `n` passes a stream (-1 where wrong or abstained), and the formula's ACR: NaN where
    the formula says nothing, since so few passes (up to 29 at alpha = 0.001) leave it no share of the radius."""

    n: int
    radii: npt.NDArray[np.float64]
    formula_acr: float


def plan(results: Sequence[Result], passes: Sequence[int]) -> list[Forecast]:
    """Approximate forecasts for `Fixed(n)` at each n of `passes`, from the votes of a pilot made with a Fixed budget.

    No guarantee and no alpha of its own: use it to choose a budget. Raises `InputError`.
    """
    budgets = {result.certificate.terms.budget for result in results}
    pilot = budgets.pop()
    if budgets or not isinstance(pilot, Fixed):
        raise InputError(f"the pilot has budget {pilot}; expected results of one Fixed budget")
    own = np.array([r.correct_radius for r in results])
    alpha = results[0].certificate.alpha
    known = _share(pilot.n, alpha)
    limit = average_certified_radius(own) / known if known > 0 else math.nan
    forecasts = []
    for n in passes:
        budget = Fixed(n, n0=pilot.n0)
        radii = []
        for result in results:
            certificate = result.certificate
            outcome = settle(replace(certificate.terms, budget=budget), _scaled(certificate.tally, n))
            radii.append(outcome.correct_radius(result.true_label))
        share = _share(n, alpha)
        forecasts.append(Forecast(n, np.array(radii), limit * share if share > 0 else math.nan))
    return forecasts


def _share(n: int, alpha: float) -> float:
    """ACR(n) / ACR(inf) by the formula; 0 or less where it does not hold."""
    return 1 - 1.64 * float(normal_quantile(1 - alpha / 2)) / math.sqrt(n)


def _scaled(tally: Tally, n: int) -> Tally:
    """The tally that the same vote shares would give at n passes; selection votes stay as they are."""
    scaled = Tally(tally.classes, tally.levels)
    for stream, looks in tally.looks.items():
        scaled.record(stream, _stretch(looks[-1], n) if stream.purpose == ESTIMATION else looks[-1])
    return scaled


def _stretch(counts: Counts, n: int) -> Counts:
    """Counts of n votes in the shares of `counts`, smoothed by half a vote on each of the two most voted classes (a
    class that won every vote of a pilot need not win every vote of a longer run)."""
    if int(counts.sum()) == n:
        return counts
    smooth = counts.astype(np.float64)
    smooth[np.argsort(counts)[-2:]] += 0.5
    exact = smooth / smooth.sum() * n
    floor = np.floor(exact).astype(np.int64)
    floor[np.argsort(floor - exact)[: n - int(floor.sum())]] += 1
    return np.asarray(floor, np.int64)
