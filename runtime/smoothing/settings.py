"""How images are certified: what a caller may choose, and what holds where nothing is chosen.

Public functions take keyword arguments and make one `Settings` of them, which is handed down whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.modes import chosen_budget
from dualsmooth.runtime.smoothing.seeds import Seeds
from dualsmooth.runtime.statistics import rules
from dualsmooth.runtime.statistics.budgets import Budget, Fixed
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.foresight import require_possible, require_possible_prediction
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.rules.rule import Terms

ALPHA = 1e-3
RULE = rules.DEFAULT
BUDGET = Fixed(10_000)
PREDICTION_PASSES = 1_000
GroupsGiven = bool | Mapping[str, Any] | Groups
"""Whether the bundle's groups may answer in place of a class, or groups of one's own."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every image of a call. `route`: None for the rule's own; `seed`: None for the operating system's
    entropy, afresh for each image; `noise`: None for `DEFAULT_NOISE`; `all_levels`: sample every level in
    full, whatever the rule needs. `groups`: whether the bundle's groups may answer in place of a class, or groups of
    one's own (`Groups.resolved`); `at_most`: how many classes a set may hold that answers. Nothing is checked before it
    is used: `terms` and `seeds` do."""

    alpha: float = ALPHA
    budget: Budget = BUDGET
    rule: str = RULE
    route: str | None = None
    seed: int | Seed | None = None
    noise: Noise | None = None
    all_levels: bool = False
    groups: GroupsGiven = False
    at_most: int = 1

    @classmethod
    def of(
        cls, *, budget: Budget | None = None, mode: str | None = None, r: float | None = None, **others: Any
    ) -> Settings:
        """From the keyword arguments of a public function, where a mode names a budget, and neither stands for the
        usual one. Raises `InputError` for a mode that does not fit."""
        chosen = chosen_budget(budget, mode, r)
        return cls(budget=BUDGET if chosen is None else chosen, **others)

    @classmethod
    def of_prediction(cls, *, n: int = PREDICTION_PASSES, **others: Any) -> Settings:
        """From the keyword arguments of a prediction. Raises `InputError` for an `n` that is no number of passes."""
        return cls(budget=Fixed(n), **others)

    def terms(self, bundle: Bundle) -> Terms:
        """Checked terms of a certificate under a bundle. Raises `InputError`, also where no votes could satisfy
        them."""
        terms = self._terms(bundle)
        require_possible(terms)
        return terms

    def prediction_terms(self, bundle: Bundle) -> Terms:
        """Checked terms of a prediction of a `Fixed` budget. Raises `InputError`, also where so few passes could only
        abstain."""
        terms = self._terms(bundle)
        require_possible_prediction(terms, self.budget.looks[-1])
        return terms

    def seeds(self) -> Seeds:
        """The seeds of a stream of images. Raises `InputError`."""
        return Seeds(self.seed, self.noise)

    def _groups(self, bundle: Bundle) -> Groups | None:
        if self.groups is False or self.groups is None:
            return None
        if self.groups is not True:
            return Groups.resolved(self.groups, bundle.classes)
        if bundle.groups is None:
            raise InputError(
                f"groups with {bundle.path}, which has none; pass groups of your own (--groups-file), or put some into "
                "a new bundle with `dualsmooth export BUNDLE --groups FILE --out NEW`"
            )
        return bundle.groups

    def _terms(self, bundle: Bundle) -> Terms:
        return checked_terms(
            bundle.sigmas,
            bundle.sigma_e,
            len(bundle.classes),
            alpha=self.alpha,
            rule=self.rule,
            route=self.route,
            budget=self.budget,
            groups=self._groups(bundle),
            at_most=self.at_most,
            sure=bundle.sure,
        )
