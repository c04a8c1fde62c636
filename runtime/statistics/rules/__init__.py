"""Rules: from votes to a certified radius. One file a rule, and this table."""

from __future__ import annotations

from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.statistics.rules.confidence import Confidence
from dualsmooth.runtime.statistics.rules.fallback import Fallback
from dualsmooth.runtime.statistics.rules.interval import Interval
from dualsmooth.runtime.statistics.rules.multiscale import Multiscale
from dualsmooth.runtime.statistics.rules.paper import Paper
from dualsmooth.runtime.statistics.rules.rule import Rule
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.rules.sure import Sure

_ALL: tuple[type[Rule], ...] = (
    Interval,
    Paper,
    Multiscale,
    Confidence,
    Sure,
    Fallback,
    Single,
)
RULES = {rule.kind: rule for rule in _ALL}
DEFAULT = Interval.kind
FORMS = one_of([rule.form for rule in RULES.values()])
"""How rules are written."""
PREDICTING = one_of([rule.form for rule in RULES.values() if rule.predicts])
"""The rules that a prediction without a radius may be asked for under."""


def rule_named(text: str, sigmas: tuple[float, ...], *, router: bool = True) -> Rule:
    """The rule of a text such as `interval` or `single:0.5`. Without a `router` those that are about one are Cohen's
    rule at the only level, which they come to there. Raises `InputError`."""
    for kind in RULES.values() if isinstance(text, str) else ():
        if (found := kind.named(text, sigmas)) is not None:
            return found if router or not found.routes else rule_named(Single.all_named(sigmas)[0], sigmas)
    raise InputError(f"rule {text!r} is unknown; expected {FORMS}")
