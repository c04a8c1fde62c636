"""The paper's rival: the multi-scale cascade (Jeong & Shin 2023, Multi-scale Diffusion Denoised Smoothing).

The cascade answers with the largest sigma whose smoothed classifier gives some class more than 1/2; larger sigmas
abstain. Its certificate at level i is min( sigma_i Phi^-1(p_y), min over larger j of -sigma_j Phi^-1(max_c p_c) ). Our
bounds are exact Clopper–Pearson where the published code used Goodman's approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.rounding import round_down, stated
from dualsmooth.runtime.statistics.bounds import normal_quantile
from dualsmooth.runtime.statistics.budgets.budget import Budget
from dualsmooth.runtime.statistics.rules.rule import Legend, Outcome, Rule, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, SELECTION, Request, Requests, Stream, Tally


@dataclass(frozen=True)
class Multiscale(Rule):
    """The largest level that does not abstain answers."""

    kind: ClassVar[str] = "multiscale"
    form: ClassVar[str] = kind
    legend: ClassVar[Legend] = Legend(
        kind, "a cascade of noise levels, the largest first that does not abstain (Jeong & Shin 2023)", colour=2
    )

    def check_budget(self, budget: Budget) -> None:
        if len(budget.looks) > 1:
            raise InputError(f"rule {self} with budget {budget}; expected a Fixed budget")

    def streams(self, terms: Terms) -> tuple[int, int]:
        return 1, len(terms.sigmas)

    def subject(self, terms: Terms) -> str:
        return "the cascade: the largest sigma at which a class has more than half of the votes answers"

    def shares(self, terms: Terms) -> tuple[float, float]:
        """The share of the bound on a level's label, and of each upper bound at it: alpha / K both.

        Let i be the level at which the cascade answers at the input. A certificate is false only if a level above i
        seems to be certain of its label, or i seems to abstain for certain, or the certificate of i itself overstates,
        which takes one false claim, of the level (and class) that attains its minimum. That is at most K claims in all;
        which ones is fixed by the input and the guessed labels, not by the votes that are bounded.
        """
        share = terms.alpha / len(terms.sigmas)
        return share, share

    def requests(self, terms: Terms, tally: Tally) -> Requests:
        """The votes of the largest level, then of the next smaller one, until a level does not abstain."""
        for level in reversed(range(len(terms.sigmas))):
            yield [Request(Stream(CLASSIFIER, level, SELECTION), terms.budget.selection)]
            yield [Request(Stream(CLASSIFIER, level, ESTIMATION), terms.budget.looks[0])]
            _, radius, abstains = self._level(terms, tally, level)
            if radius > 0 or abstains == 0:
                return

    def settle(self, terms: Terms, tally: Tally) -> Outcome:
        count = len(terms.sigmas)
        abstains = [0.0] * count
        radii = [0.0] * count
        limit = math.inf
        for level in reversed(range(count)):
            label, radii[level], abstains[level] = self._level(terms, tally, level)
            radius = round_down(min(radii[level], limit))
            if radii[level] > 0 or abstains[level] == 0 or level == 0:
                break
            limit = min(limit, abstains[level])
        return Outcome(
            label=label if radius > 0 else None,
            radius=radius,
            route=level,
            guess=label,
            route_radius=stated(limit),
            class_radius=round_down(radii[level]),
            exclusion=tuple(round_down(a) for a in abstains),
            class_radii=tuple(round_down(a) for a in radii),
        )

    def best_radius(self, terms: Terms) -> float:
        lower = terms.budget.lower(terms.budget.looks[-1], 0, self.shares(terms)[0])
        return max(terms.sigmas) * max(0.0, float(normal_quantile(lower)))

    def _level(self, terms: Terms, tally: Tally, level: int) -> tuple[int, float, float]:
        """Guessed label, its radius, and the radius within which this level certainly abstains (0: not certified)."""
        budget, sigma = terms.budget, terms.sigmas[level]
        selection = tally.counts(Stream(CLASSIFIER, level, SELECTION))
        counts = tally.counts(Stream(CLASSIFIER, level, ESTIMATION))
        n = int(counts.sum())
        if not selection.any() or n != budget.looks[-1]:
            raise CertificateError(f"level {level} lacks the votes that rule {self} needs; evaluate with --all-levels")
        label = int(np.argmax(selection))
        top, other = self.shares(terms)
        lower = budget.lower(counts[label], 0, top)
        others = budget.lower(n - counts.max(), 0, other)
        return (
            label,
            sigma * max(0.0, float(normal_quantile(lower))),
            sigma * max(0.0, float(normal_quantile(others))),
        )
