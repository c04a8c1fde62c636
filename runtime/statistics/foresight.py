"""What no run of votes could prove is refused before a pass is spent, with what would do."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import RADIUS_STEP, normal_quantile
from dualsmooth.runtime.statistics.budgets import MAX_PASSES, AtRadii, AtRadius, Budget, Fixed
from dualsmooth.runtime.statistics.certification import Evidence, Terms
from dualsmooth.runtime.statistics.rules.multiscale import cascade_shares
from dualsmooth.runtime.statistics.rules.plan import make_plan, single_level


def require_possible(terms: Terms) -> None:
    """Raises `InputError` where the budget could not certify what it is asked for, though all votes agreed."""
    budget, asked = terms.budget, _asked(terms.budget)
    best = best_radius(terms)
    if best >= asked:
        return
    name = "n" if isinstance(budget, Fixed) else "max_passes"
    what = "anything" if asked == RADIUS_STEP else f"radius {asked:g}"
    why = (
        f"budget {budget} can never certify {what} at alpha {terms.alpha:g} (rule {terms.rule}): if all votes agreed, "
    )
    why += f"the radius would be {best:.4g}"
    least = _least(terms, asked)
    if least is None:
        limit = best_radius(replace(terms, budget=_sized(budget, MAX_PASSES)))
        raise InputError(f"{why}, and at most {limit:.4g} with any {name}; ask for a smaller radius")
    raise InputError(f"{why}; expected {name} of at least {least}")


@lru_cache(maxsize=64)
def best_radius(terms: Terms) -> float:
    """The radius if every vote were for the label and for one route, the best one."""
    budget, sigmas = terms.budget, terms.sigmas
    if terms.rule == "multiscale":
        lower = budget.lower(budget.looks[-1], 0, cascade_shares(len(sigmas), terms.alpha)[0])
        return max(sigmas) * max(0.0, float(normal_quantile(lower)))
    single = terms.rule.startswith("single:")
    routes = [single_level(terms.rule, sigmas)] if single else range(len(sigmas))
    plans = (
        make_plan(
            terms.rule, terms.route_kind, sigmas=sigmas, sigma_e=terms.sigma_e, classes=terms.classes, route=route,
            label=0, alpha=terms.alpha,
        )
        for route in routes
    )  # fmt: skip
    return max(plan.radius(Evidence(plan, budget).reachable) for plan in plans)


def least_prediction(levels: int, alpha: float) -> int:
    """Fewest passes that can tell a top class from the second one, at the alpha of a stage (`prediction.predicted`)."""
    share = alpha / 2 if levels > 1 else alpha
    return math.ceil(math.log2(2 / share))


def require_possible_prediction(terms: Terms, n: int) -> None:
    """Raises `InputError` where n passes that agree would abstain."""
    least = least_prediction(len(terms.sigmas), terms.alpha)
    if n < least:
        raise InputError(
            f"n is {n}: a prediction at alpha {terms.alpha:g} would always abstain; expected n of at least {least}"
        )


def _asked(budget: Budget) -> float:
    """The least radius that is worth a pass."""
    if isinstance(budget, AtRadius):
        return budget.r
    return max(min(budget.radii), RADIUS_STEP) if isinstance(budget, AtRadii) else RADIUS_STEP


def _sized(budget: Budget, passes: int) -> Budget:
    return replace(budget, **{"n" if isinstance(budget, Fixed) else "max_passes": passes})


def _least(terms: Terms, asked: float) -> int | None:
    """Fewest passes that could reach the radius, by bisection; None where no number does."""
    low, high = terms.budget.looks[-1], MAX_PASSES
    if best_radius(replace(terms, budget=_sized(terms.budget, high))) < asked:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = best_radius(replace(terms, budget=_sized(terms.budget, middle))) >= asked
        low, high = (low, middle) if enough else (middle, high)
    return high
