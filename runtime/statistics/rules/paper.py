"""The paper's rule (Sun, Mao, Vechev, ICLR 2026, arXiv 2512.01782): the route stays, and so does the label at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualsmooth.runtime.statistics.rules.plan import Claim, exclusion_claims, label_claims
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms


@dataclass(frozen=True)
class Paper(PlannedRule):
    """Every level but the guessed route is excluded; R = min(R_route, R_class)."""

    kind: ClassVar[str] = "paper"
    form: ClassVar[str] = kind
    legend: ClassVar[Legend] = Legend(
        kind, "certified as far as the chosen noise level and the label at it both stay (Sun et al. 2026)", colour=1
    )
    routes: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    def streams(self, terms: Terms) -> tuple[int, int]:
        return (2, 2) if self.only_level(terms) is None else (1, 1)

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        """The guessed route's level spends alpha on its label, every other one on being excluded. The paper divides
        alpha between the stages; R is a minimum, so each may have all of it (docs/mathematics.md, theorem 4)."""
        exclusions = exclusion_claims(terms.route_kind, len(terms.sigmas), route, terms.alpha)
        return exclusions + label_claims(route, label, terms.classes, terms.alpha)
