"""What no run of votes could prove is refused before a pass is spent, with what would do."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.budgets import MAX_PASSES
from dualsmooth.runtime.statistics.rules import PREDICTING
from dualsmooth.runtime.statistics.rules.rule import Terms


def require_possible(terms: Terms) -> None:
    """Raises `InputError` where the budget could not certify what it is asked for, though all votes agreed."""
    budget, asked = terms.budget, terms.budget.asked
    best = best_radius(terms)
    if best >= asked:
        return
    what = "anything" if asked == RADIUS_STEP else f"radius {asked:g}"
    why = (
        f"budget {budget} can never certify {what} at alpha {terms.alpha:g} (rule {terms.rule}): if all votes agreed, "
    )
    why += f"the radius would be {best:.4g}"
    least = _least(terms, asked)
    if least is None:
        limit = best_radius(replace(terms, budget=budget.sized(MAX_PASSES)))
        raise InputError(f"{why}, and at most {limit:.4g} with any {budget.most}; ask for a smaller radius")
    raise InputError(f"{why}; expected {budget.most} of at least {least}")


@lru_cache(maxsize=64)
def best_radius(terms: Terms) -> float:
    """The radius if every vote were for the label and for one route, the best one."""
    return terms.rule.best_radius(terms)


def least_prediction(levels: int, alpha: float) -> int:
    """Fewest passes that can tell a top class from the second one, at the alpha of a stage (`prediction.predicted`)."""
    share = alpha / 2 if levels > 1 else alpha
    return math.ceil(math.log2(2 / share))


def require_possible_prediction(terms: Terms, n: int) -> None:
    """Raises `InputError` where the rule does not predict, or n passes that agree would abstain."""
    if not terms.rule.predicts and terms.sigma_e is not None:
        raise InputError(f"rule {str(terms.rule)!r} does not predict; expected {PREDICTING}")
    least = least_prediction(len(terms.sigmas), terms.alpha)
    if n < least:
        raise InputError(
            f"n is {n}: a prediction at alpha {terms.alpha:g} would always abstain; expected n of at least {least}"
        )


def _least(terms: Terms, asked: float) -> int | None:
    """Fewest passes that could reach the radius, by bisection; None where no number does."""
    low, high = terms.budget.looks[-1], MAX_PASSES
    if best_radius(replace(terms, budget=terms.budget.sized(high))) < asked:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = best_radius(replace(terms, budget=terms.budget.sized(middle))) >= asked
        low, high = (low, middle) if enough else (middle, high)
    return high
