"""The cascade of sure votes (docs/mathematics.md, theorem 10): above the smallest level only those votes count that the
network is sure of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dualsmooth.runtime.statistics.rules.confidence import Confidence
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, SELECTION, Counts, Stream, Tally


@dataclass(frozen=True)
class Sure(Confidence):
    """As `confidence`, of votes that are sure: whose softmax reaches what the bundle says of the level. A level above
    the smallest answers where a class has at least the share `least` of all its votes in sure ones; the smallest counts
    them all. In a bundle that says nothing every vote is sure, and this is `confidence`."""

    least: tuple[float, ...] = (0.3,)

    kind: ClassVar[str] = "sure"
    form: ClassVar[str] = "sure:P"
    derives: ClassVar[bool] = False
    legend: ClassVar[Legend] = Legend(
        kind, "as confidence, but only votes count in which the network is sure; at the smallest level all do", colour=5
    )

    def subject(self, terms: Terms) -> str:
        sure = ", ".join(f"{least:g} at {sigma!r}" for least, sigma in zip(terms.sure, terms.sigmas[1:], strict=False))
        return (
            f"the cascade of sure votes (softmax from {sure or 0}): the largest sigma at which a class has at least "
            f"{self.shares_of(terms)} of the votes in sure ones answers"
        )

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        """Those of `confidence`, of sure votes above the smallest level; what is not sure is no rival."""
        return [
            claim
            if claim.level == 0
            else replace(claim, sure=True, event=(*claim.event, terms.classes) if claim.rivals else claim.event)
            for claim in super().claims(terms, route, label)
        ]

    def _says(self, terms: Terms, tally: Tally, level: int) -> Counts:
        counts = super()._says(terms, tally, level)
        return counts if level == 0 else tally.sure_counts(Stream(CLASSIFIER, level, SELECTION))[:-1]
