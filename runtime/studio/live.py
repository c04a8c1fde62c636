"""What the votes of one certificate say while they come in. None of it is certified before the last one is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.smoothing.stated import finite
from dualsmooth.runtime.smoothing.view import short_words
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.questions import Question, asked
from dualsmooth.runtime.statistics.rules.planned import PlannedRule, outcome_of
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATION,
    ESTIMATOR,
    SELECTION,
    Counts,
    Stage,
    Stream,
    Tally,
)

SHOWN = 12
"""How many classes of a stream are told: all of few, else the most voted."""


class Live:
    """The votes of a job so far. `tally` is the job's own, and holds the looks that are full."""

    def __init__(self, terms: Terms, tally: Tally, classes: Sequence[str]) -> None:
        self.terms, self.tally, self.classes = terms, tally, classes
        self._question = None if terms.coarser else Question(terms)
        self._heard = Tally(tally.classes, tally.levels)

    def hear(self, stream: Stream, counts: Counts, sure: Counts | None) -> None:
        self._heard.looks[stream] = [counts]
        if sure is not None:
            self._heard.sure[stream] = [sure]

    def so_far(self) -> Outcome | None:
        """What the rule would say if each stream had been fixed to end where it stands: *not* a certificate, since
        nobody fixed that, and whoever looks at every batch and picks one errs more often than alpha. With a `Fixed`
        budget the last one is the outcome. None before the label is guessed, and for rules that state no claims."""
        rule = self.terms.rule
        if not isinstance(rule, PlannedRule):
            return None
        try:
            question = self._question = self._question or asked(self.terms, self.tally)
            plan = rule.planned(question.terms, question.view(self.tally))
        except CertificateError:  # selection votes are still to come
            return None
        lower, heard = np.zeros(len(plan.claims)), question.view(self._heard)
        for number, claim in enumerate(plan.claims):
            stream = Stream(claim.stage, claim.level, ESTIMATION)
            if stream in heard.looks:
                lower[number] = lower_bound(claim.hits_of(heard, stream), heard.passes(stream), claim.alpha)
        return question.in_classes(outcome_of(plan, lower), self.tally)

    def told(self) -> dict[str, Any]:
        """For the page: passes, the votes of each network, and `so_far`."""
        found = self.so_far()
        group = found.asked if found and found.asked and found.asked.name else None
        return {
            "passes": self._heard.total(),
            "networks": [told for stage, level in self._networks() if (told := self._votes(stage, level, group))],
            "so_far": None if found is None else told_outcome(found, self.classes),
        }

    def _networks(self) -> list[tuple[Stage, int]]:
        return [(ESTIMATOR, 0), *((CLASSIFIER, level) for level in range(len(self.terms.sigmas)))]

    def _votes(self, stage: Stage, level: int, group: Part | None) -> dict[str, Any] | None:
        """Bounded votes where there are any, else those of the selection; where a group is asked for, a classifier's
        votes for it as well."""
        for purpose in (ESTIMATION, SELECTION):
            if (stream := Stream(stage, level, purpose)) in self._heard.looks:
                counts = self._heard.counts(stream)
                some = np.flatnonzero(counts)
                top = some if len(some) <= SHOWN else np.sort(np.argsort(-counts, kind="stable")[:SHOWN])
                votes = [[int(c), int(counts[c])] for c in top]
                name = "estimator" if stage == ESTIMATOR else str(level)
                told = {"name": name, "purpose": purpose, "passes": int(counts.sum()), "votes": votes}
                if group is None or stage == ESTIMATOR:
                    return told
                return told | {"group": [short_words(group, self.classes), int(counts[list(group.classes)].sum())]}
        return None


def told_outcome(outcome: Outcome, classes: Sequence[str]) -> dict[str, Any]:
    """An outcome for the page: its `answer` in classes, and the `name` of that, or of what is guessed; None stands for
    infinite radii."""
    asked = outcome.asked or Part((outcome.guess,))
    return {
        "answer": list(outcome.answer),
        "name": short_words(asked, classes),
        "coarse": outcome.asked is not None,
        "radius": outcome.radius,
        "route": outcome.route,
        "exclusion": [finite(radius) for radius in outcome.exclusion],
        "class_radii": list(outcome.class_radii),
    }
