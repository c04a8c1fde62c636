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
from dualsmooth.runtime.evaluation.results import Result, sampled_levels
from dualsmooth.runtime.statistics.accuracy import average_certified_radius
from dualsmooth.runtime.statistics.bounds import normal_quantile
from dualsmooth.runtime.statistics.budgets import Budget, Fixed
from dualsmooth.runtime.statistics.certification import certification, settle
from dualsmooth.runtime.statistics.votes import ESTIMATION, SELECTION, Counts, Stream, Tally


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
        more = stream.purpose == ESTIMATION
        scaled.record(stream, _stretch(looks[-1], n) if more else looks[-1])
        if stream in tally.sure:
            sure = tally.sure_counts(stream)
            scaled.sure[stream] = [(_stretch(sure, n) if more else sure)[:-1]]
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


@dataclass(frozen=True)
class Capacity:
    """What `images` certificates cost on replicas (processes that serve alone) of some cores each, all of them as fast.

    `mean`, `error`: passes a certificate and the standard error of that mean (NaN of one image); `high`: what 90 % of
    the certificates do not exceed. `passes`: of all images; `core_hours`; `hours`: by the clock, on `replicas`.
    `served`: certificates a second of one replica that is never idle; `high_seconds`: it takes so long over `high`.
    """

    images: int
    mean: float
    error: float
    high: int
    passes: int
    core_hours: float
    replicas: int
    hours: float
    served: float
    high_seconds: float

    def replicas_for(self, requests: float) -> int:
        """The fewest replicas that serve so many certificates a second, none of them ever idle."""
        return math.ceil(requests / self.served)


def passes_spent(results: Sequence[Result], budget: Budget | None = None) -> npt.NDArray[np.int64]:
    """Passes [images] that `budget` (the pilot's unless given) takes, as its rule needs them: of a pilot with all
    levels, only those that the rule asks for.

    Measured where the budget is the pilot's. From one Fixed budget to another, the streams that were drawn are taken to
    be those that will be: exact where the rule fixes them, near otherwise. What other budgets take depends on votes at
    looks that no pilot of another budget has: `InputError`.
    """
    pilots = {result.certificate.terms.budget for result in results}
    wanted = results[0].certificate.terms.budget if budget is None else budget
    if pilots != {wanted} and not all(isinstance(one, Fixed) for one in (wanted, *pilots)):
        raise InputError(
            f"the passes of {wanted} do not follow from a pilot with {', '.join(sorted(map(str, pilots)))}: only fixed "
            f"budgets scale; make one with `dualsmooth evaluate … --budget {wanted} --max 200`"
        )
    return np.array([_cost(_drawn(result), wanted) for result in results], np.int64)


def _cost(drawn: dict[Stream, int], budget: Budget) -> int:
    if not isinstance(budget, Fixed):
        return sum(drawn.values())
    return sum(budget.selection if stream.purpose == SELECTION else budget.n for stream in drawn)


def _drawn(result: Result) -> dict[Stream, int]:
    """Passes of each stream that the rule asks for."""
    certificate, drawn = result.certificate, dict[Stream, int]()
    votes = certificate.tally
    if sampled_levels(votes.levels, votes.to_dict()) == "as needed":
        return {stream: votes.passes(stream) for stream in votes.looks}
    tally = certificate.terms.tally()
    for requests in certification(certificate.terms, tally):
        for stream, until in requests:
            look = len(tally.looks.get(stream, []))
            tally.record(stream, votes.looks[stream][look], votes.sure[stream][look] if stream in votes.sure else None)
            drawn[stream] = until
    return drawn


def pilots_rate(results: Sequence[Result]) -> float:
    """Passes a second of the process that made a pilot while it was at work."""
    seconds = sum(result.seconds for result in results)
    if seconds <= 0:
        raise InputError("the pilot's rows state no seconds; give the speed with --passes-per-second")
    return sum(result.certificate.passes for result in results) / seconds


def capacity(passes: npt.NDArray[np.int64], images: int, *, rate: float, replica_cores: int, cores: int) -> Capacity:
    """What `images` certificates cost that take `passes` [pilot's images] each, at `rate` passes a second of a replica
    on `replica_cores` of all `cores` (GPUs count as well). Replicas are taken to share nothing. Raises `InputError`."""
    if not (images >= 1 and rate > 0 and math.isfinite(rate) and 1 <= replica_cores <= cores):
        raise InputError(
            f"{images} images at {rate:g} passes a second on {replica_cores} of {cores} cores; expected at least one "
            "image, a positive speed, and a replica of 1 core up to all of them"
        )
    mean, high = float(passes.mean()), int(np.percentile(passes, 90, method="inverted_cdf"))
    error = float(passes.std(ddof=1)) / math.sqrt(passes.size) if passes.size > 1 else math.nan
    replicas, hours = cores // replica_cores, mean * images / rate / 3600
    return Capacity(
        images, mean, error, high, round(mean * images), hours * replica_cores, replicas, hours / replicas,
        rate / mean, high / rate,
    )  # fmt: skip
