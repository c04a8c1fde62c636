"""How images are certified: what a caller may choose, and what holds where nothing is chosen.

Public functions take keyword arguments and make one `Settings` of them, which is handed down whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.seeds import Seeds
from dualsmooth.runtime.statistics import rules
from dualsmooth.runtime.statistics.budgets import Budget, Fixed
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.foresight import require_possible, require_possible_prediction
from dualsmooth.runtime.statistics.rules.rule import Terms

ALPHA = 1e-3
RULE = rules.DEFAULT
BUDGET = Fixed(10_000)
PREDICTION_PASSES = 1_000


@dataclass(frozen=True)
class Settings:
    """What is asked of every image of a call. `route`: None for the rule's own; `seed`: None for the operating system's
    entropy, afresh for each image; `noise`: None for `DEFAULT_NOISE`; `all_levels`: sample every level in
    full, whatever the rule needs. Nothing is checked before it is used: `terms` and `seeds` do."""

    alpha: float = ALPHA
    budget: Budget = BUDGET
    rule: str = RULE
    route: str | None = None
    seed: int | Seed | None = None
    noise: Noise | None = None
    all_levels: bool = False

    @classmethod
    def of(cls, *, budget: Budget | None = None, **others: Any) -> Settings:
        """From the keyword arguments of a public function, where no budget stands for the usual one."""
        return cls(budget=BUDGET if budget is None else budget, **others)

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

    def _terms(self, bundle: Bundle) -> Terms:
        return checked_terms(
            bundle.sigmas,
            bundle.sigma_e,
            len(bundle.classes),
            alpha=self.alpha,
            rule=self.rule,
            route=self.route,
            budget=self.budget,
        )
