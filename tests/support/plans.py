"""Plans of rules by their names, for tests of what rules claim."""

from __future__ import annotations

from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.rules import rule_named
from dualsmooth.runtime.statistics.rules.plan import Plan
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Terms


def plan_of(
    rule: str,
    kind: str,
    *,
    sigmas: tuple[float, ...],
    sigma_e: float,
    classes: int,
    alpha: float,
    route: int,
    label: int,
) -> Plan:
    """The plan of a rule for a guessed route and label."""
    found = rule_named(rule, sigmas)
    assert isinstance(found, PlannedRule)
    return found.plan(Terms(sigmas, sigma_e, classes, alpha, found, kind, Fixed(100)), route, label)
