"""The interval rule (docs/mathematics.md, theorems 3 and 4): whatever the route is near the input, the label is the
same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualsmooth.runtime.statistics.routes import MEDIAN
from dualsmooth.runtime.statistics.rules.plan import Claim, exclusion_claims, label_claims
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms

EXCLUSION_SHARE = 0.8
"""Share of a level's alpha for excluding it as the route; the rest is for its label."""


@dataclass(frozen=True)
class Interval(PlannedRule):
    """Every level is excluded as the route, or says the label."""

    kind: ClassVar[str] = "interval"
    form: ClassVar[str] = kind
    legend: ClassVar[Legend] = Legend(
        kind,
        "certified as far as every noise level that the router might choose there gives the same label",
        colour=0,
        reading="R: the shortest of the longer bars",
    )
    default_route: ClassVar[str] = MEDIAN
    routes: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        """The guessed route's level spends alpha on its label. Every other level spends `EXCLUSION_SHARE` of alpha on
        being excluded, by the side that faces the guessed route, and the rest on its label."""
        count, classes, alpha = len(terms.sigmas), terms.classes, terms.alpha
        claims = exclusion_claims(terms.route_kind, count, route, EXCLUSION_SHARE * alpha)
        claims += label_claims(route, label, classes, alpha)
        for level in (s for s in range(count) if s != route):
            claims += label_claims(level, label, classes, (1 - EXCLUSION_SHARE) * alpha)
        return claims
