"""The paper's rival: the multi-scale cascade (Jeong & Shin 2023, Multi-scale Diffusion Denoised Smoothing).

The cascade answers with the largest sigma whose smoothed classifier gives some class more than 1/2; larger sigmas
abstain. Its certificate at level i is min( sigma_i Phi^-1(p_y), min over larger j of -sigma_j Phi^-1(max_c p_c) ). Our
bounds are exact Clopper–Pearson where the published code used Goodman's approximation.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.statistics.bounds import normal_quantile, round_down
from dualsmooth.runtime.statistics.budgets import Budget
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, SELECTION, Request, Stream, Tally


def cascade_shares(levels: int, alpha: float) -> tuple[float, float]:
    """The share of the bound on a level's label, and of each upper bound at it: alpha / K both.

    Let i be the level at which the cascade answers at the input. A certificate is false only if a level above i seems
    to be certain of its label, or i seems to abstain for certain, or the certificate of i itself overstates, which
    takes one false claim, of the level (and class) that attains its minimum. That is at most K claims in all; which
    ones is fixed by the input and the guessed labels, not by the votes that are bounded.
    """
    return alpha / levels, alpha / levels


def multiscale_certification(
    budget: Budget, sigmas: tuple[float, ...], tally: Tally, shares: tuple[float, float]
) -> Generator[list[Request], None, None]:
    """Ask for the votes of the largest level, then of the next smaller one, until a level does not abstain."""
    for level in reversed(range(len(sigmas))):
        yield [Request(Stream(CLASSIFIER, level, SELECTION), budget.selection)]
        yield [Request(Stream(CLASSIFIER, level, ESTIMATION), budget.looks[0])]
        _, radius, abstains = _level(budget, sigmas, tally, level, shares)
        if radius > 0 or abstains == 0:
            return


def settle_multiscale(
    budget: Budget, sigmas: tuple[float, ...], tally: Tally, shares: tuple[float, float]
) -> dict[str, Any]:
    """With probability at least 1 - alpha the cascade returns `label` closer to the input than `radius`; `shares` of
    alpha as `cascade_shares` gives them."""
    count = len(sigmas)
    abstains = [0.0] * count
    radii = [0.0] * count
    limit = np.inf
    for level in reversed(range(count)):
        label, radii[level], abstains[level] = _level(budget, sigmas, tally, level, shares)
        radius = round_down(min(radii[level], limit))
        if radii[level] > 0 or abstains[level] == 0 or level == 0:
            break
        limit = min(limit, abstains[level])
    return {
        "label": label if radius > 0 else None,
        "radius": radius,
        "route": level,
        "guess": label,
        "route_radius": limit if np.isinf(limit) else round_down(limit),
        "class_radius": round_down(radii[level]),
        "exclusion": tuple(round_down(a) for a in abstains),
        "class_radii": tuple(round_down(a) for a in radii),
    }


def _level(
    budget: Budget, sigmas: tuple[float, ...], tally: Tally, level: int, shares: tuple[float, float]
) -> tuple[int, float, float]:
    """Guessed label, its radius, and the radius within which this level certainly abstains (0: not certified)."""
    selection = tally.counts(Stream(CLASSIFIER, level, SELECTION))
    counts = tally.counts(Stream(CLASSIFIER, level, ESTIMATION))
    n = int(counts.sum())
    if not selection.any() or n != budget.looks[-1]:
        raise CertificateError(f"level {level} lacks the votes that rule multiscale needs; evaluate with --all-levels")
    label = int(np.argmax(selection))
    lower = budget.lower(counts[label], 0, shares[0])
    others = budget.lower(n - counts.max(), 0, shares[1])
    return (
        label,
        sigmas[level] * max(0.0, float(normal_quantile(lower))),
        sigmas[level] * max(0.0, float(normal_quantile(others))),
    )
