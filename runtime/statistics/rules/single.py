"""One noise level for all images, no router (Cohen, Rosenfeld, Kolter 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.rules.plan import Claim
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms

_PREFIX = "single:"


@dataclass(frozen=True)
class Single(PlannedRule):
    """`single:SIGMA`: the level of that noise level. `text` is the name as it was given."""

    kind: ClassVar[str] = "single"
    form: ClassVar[str] = "single:SIGMA"
    legend: ClassVar[Legend] = Legend(
        "single:σ", "one noise level for all images, no router (Cohen et al. 2019)", colour=3, dashed=True
    )

    text: str
    level: int

    def __str__(self) -> str:
        return self.text

    @classmethod
    def named(cls, text: str, sigmas: tuple[float, ...]) -> Self | None:
        if not text.startswith(_PREFIX):
            return None
        try:
            return cls(text, sigmas.index(float(text.removeprefix(_PREFIX))))
        except ValueError:
            known = ", ".join(name.removeprefix(_PREFIX) for name in cls.all_named(sigmas))
            raise InputError(f"rule {text!r} names a sigma that the bundle lacks; expected one of {known}") from None

    @classmethod
    def all_named(cls, sigmas: tuple[float, ...]) -> list[str]:
        """One for each level, e.g. `single:0.5`; `named` reads the same number back."""
        return [_PREFIX + (f"{sigma:g}" if float(f"{sigma:g}") == sigma else repr(sigma)) for sigma in sigmas]

    def only_level(self, terms: Terms) -> int:
        return self.level

    def claims(self, terms: Terms, route: int, label: int) -> list[Claim]:
        return self.claims_of_one(terms, route, label)
