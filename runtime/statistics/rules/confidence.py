"""A cascade that needs no router (docs/mathematics.md, theorem 10): the largest noise level that is sure enough of a
class answers, and else the smallest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import Array, normal_quantile
from dualsmooth.runtime.statistics.rules.plan import RIVAL_SHARE, Claim, Plan
from dualsmooth.runtime.statistics.rules.planned import PlannedRule, selected
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, SELECTION, Counts, Request, Requests, Stream, Tally

RIVALS_ABOVE = 0.9
"""Share of alpha for "no other class answers" at a level above the guessed one; the rest is for its label."""
GUESSED = 2 / 3
"""The guessed level's part of what its label and those of the levels between it and the smallest share."""


@dataclass(frozen=True)
class Confidence(PlannedRule):
    """A level answers where its most probable class has at least the probability `least`; the smallest level answers
    where no other does. The levels and the classes are those of the cascade of Jeong & Shin (2023), the certificate is
    that of the interval rule: every level either says the label, or does not answer, or cannot answer otherwise.
    `least`: one probability for all levels, or one for each level above the smallest."""

    least: tuple[float, ...] = (0.5,)

    kind: ClassVar[str] = "confidence"
    form: ClassVar[str] = "confidence:P"
    legend: ClassVar[Legend] = Legend(
        kind, "certified as far as every noise level that may be sure of a class there is sure of the same", colour=4
    )
    takes_coarser: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"{self.kind}:{'/'.join(map(repr, self.least))}"

    @classmethod
    def named(cls, text: str, sigmas: tuple[float, ...]) -> Self | None:
        head, colon, value = text.partition(":")
        if head != cls.kind:
            return None
        try:
            least = tuple(map(float, value.split("/"))) if colon else cls.least
        except ValueError:
            least = (0.0,)
        if not all(0.01 <= p <= 0.99 for p in least) or len(least) not in {1, len(sigmas) - 1}:
            raise InputError(
                f"rule {text[:40]!r} is unknown; expected {cls.form} with P from 0.01 to 0.99, or one P for each noise "
                f"level above the smallest (here {max(1, len(sigmas) - 1)}), as in {cls.kind}:0.5/0.7"
            )
        return cls(least)

    def least_at(self, level: int) -> float:
        """The probability that a class needs at a level above the smallest to answer."""
        return self.least[level - 1 if len(self.least) > 1 else 0]

    def cuts(self, levels: int) -> list[float]:
        """Phi^-1 of it at each level above the smallest."""
        return [float(normal_quantile(self.least_at(level))) for level in range(1, levels)]

    @classmethod
    def all_named(cls, sigmas: tuple[float, ...]) -> list[str]:
        return [str(cls())]

    def streams(self, terms: Terms) -> tuple[int, int]:
        return 1, len(terms.sigmas)

    def subject(self, terms: Terms) -> str:
        return (
            f"the cascade: the largest sigma at which a class has at least {self.shares_of(terms)} of the votes answers"
        )

    def shares_of(self, terms: Terms) -> str:
        """`least` in words."""
        if len(self.least) == 1:
            return repr(self.least[0])
        pairs = zip(self.least, terms.sigmas[1:], strict=True)
        return ", ".join(f"{p!r} (at {sigma!r})" for p, sigma in pairs)

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        """A level below the guessed one rests on the votes for the label at any level in between, which so share 90 %
        of alpha, and has what is left for its own claims. The guessed level has its part of those for its label, and
        10 % for the other classes; a level above it spends alpha mostly on the class that comes closest to answering in
        the label's place."""
        claims, between = [], route - 1
        for level in range(len(terms.sigmas)):
            label_share, rivals = 1 - RIVAL_SHARE, RIVAL_SHARE
            if level > route:
                label_share, rivals = 1 - RIVALS_ABOVE, RIVALS_ABOVE
            elif level == 0 < route:
                label_share, rivals = RIVAL_SHARE * (1 - RIVAL_SHARE), RIVAL_SHARE**2
            elif between > 0:
                label_share *= GUESSED if level == route else (1 - GUESSED) / between
            claims.append(Claim(CLASSIFIER, level, (label,), label_share * terms.alpha))
            claims.append(Claim(CLASSIFIER, level, (label,), rivals * terms.alpha, rivals=True))
        return claims

    def plan(self, terms: Terms, route: int, label: int) -> Plan:
        plan = super().plan(terms, route, label)
        return Cascade(**vars(plan), rule=self) if plan.routed else plan

    def selections(self, terms: Terms, tally: Tally) -> Requests:
        """The selection votes of the largest level, then of the next smaller one, until a level is sure enough."""
        for level in reversed(range(len(terms.sigmas))):
            yield [Request(Stream(CLASSIFIER, level, SELECTION), terms.budget.selection)]
            if self._answers(terms, tally, level):
                return

    def guessed_route(self, terms: Terms, tally: Tally) -> int:
        return next(level for level in reversed(range(len(terms.sigmas))) if self._answers(terms, tally, level))

    def guessed(self, terms: Terms, tally: Tally) -> tuple[int, Counts]:
        route = self.guessed_route(terms, tally)
        return route, self._says(terms, tally, route)

    def _answers(self, terms: Terms, tally: Tally, level: int) -> bool:
        counts, every = self._says(terms, tally, level), tally.passes(Stream(CLASSIFIER, level, SELECTION))
        return level == 0 or bool(counts.max() >= self.least_at(level) * every)

    def _says(self, terms: Terms, tally: Tally, level: int) -> Counts:
        """The selection votes [classes] that count at a level. Raises `CertificateError` where there are none."""
        return selected(terms, tally, Stream(CLASSIFIER, level, SELECTION))


@dataclass(frozen=True)
class Cascade(Plan):
    """The plan of `Confidence`."""

    rule: Confidence = Confidence()

    def margins(self, lower: Array) -> tuple[Array, Array]:
        """At each level [K]: how far the label certainly reaches `least`, and how far no other class does. The smallest
        level answers whatever it is sure of: inf and -inf."""
        z = np.full((2, len(self.sigmas)), -math.inf)
        for claim, quantile in zip(self.claims, normal_quantile(lower), strict=True):
            if claim.stage == CLASSIFIER:
                z[int(claim.rivals), claim.level] = quantile
        cut, above = np.array(self.rule.cuts(len(self.sigmas))), np.array(self.sigmas[1:])
        return np.append(math.inf, above * (z[0, 1:] - cut)), np.append(-math.inf, above * (z[1, 1:] + cut))

    def exclusion(self, lower: Array) -> Array:
        """e_s of each level s [K], from the bounds of all claims: closer to the input than e_s, no class but the label
        reaches `least` at s; or, below the guessed level, the label does at one from there down to above s, so that s
        is not asked. 0 at the smallest level where it is the guessed one: it answers whatever it is sure of."""
        asked, silent = self.margins(lower)
        for s in range(self.route):
            silent[s] = max(silent[s], asked[s + 1 : self.route + 1].max())
        return np.asarray(np.maximum(0.0, silent), np.float64)
