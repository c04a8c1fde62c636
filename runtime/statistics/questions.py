"""Which question is asked of an image: its class, or a coarser one where the class is in doubt.

The base model followed by a map from classes to groups is another base model, whose votes are sums of the votes; a set
of classes holds the label where its top class beats all others outside. Selection votes alone decide which question is
asked, and all of alpha is spent on that one (docs/mathematics.md, theorems 8 and 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.prediction import predicted, prediction
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR, Counts, Requests, Tally

DOUBT = 0.2
"""A question looks certain where the selection votes would certify it at this alpha. It decides which question is
asked, not what is proved: docs/groups.md has what other values cost."""


@dataclass(frozen=True)
class Question:
    """What is asked: under `terms`, of votes merged by `parts` (none: of the votes as they are)."""

    terms: Terms
    parts: tuple[Part, ...] = ()

    def merged(self, counts: Counts) -> Counts:
        """Votes [classes] as votes [parts]."""
        return np.array([counts[list(part.classes)].sum() for part in self.parts], np.int64) if self.parts else counts

    def refresh(self, view: Tally, tally: Tally) -> None:
        """Bring `view`, a tally of the merged votes, up to date."""
        for stream, looks in tally.looks.items():
            view.looks[stream] = looks if stream.stage == ESTIMATOR else [self.merged(counts) for counts in looks]
        if not self.parts:
            view.sure.update(tally.sure)

    def view(self, tally: Tally) -> Tally:
        """The tally of the merged votes."""
        view = self.terms.tally()
        self.refresh(view, tally)
        return view

    def part(self, answer: int) -> Part:
        """What an answer stands for."""
        return self.parts[answer] if self.parts else Part(self.terms.among or (answer,))

    def requests(self, tally: Tally) -> Requests:
        """Ask for the passes that the question needs."""
        view = self.view(tally)
        for requests in self.terms.rule.requests(self.terms, view):
            yield requests
            self.refresh(view, tally)

    def settle(self, tally: Tally) -> Outcome:
        """What the votes prove of it, in classes and groups."""
        return self.in_classes(self.terms.rule.settle(self.terms, self.view(tally)), tally)

    def in_classes(self, outcome: Outcome, tally: Tally) -> Outcome:
        """What its rule says of the merged votes, in classes and groups."""
        part = self.part(outcome.guess)
        if len(part.classes) == 1:
            label = part.classes[0]
            return replace(outcome, guess=label, label=None if outcome.label is None else label)
        _, counts = _planned(self.terms).guessed(self.terms, tally)
        guess = max(part.classes, key=lambda c: int(counts[c]))
        return replace(outcome, guess=guess, label=None, asked=part)

    def facing(self, tally: Tally) -> Question:
        """Of a set of classes: where the selection votes guess a class outside, whether the label is outside. So a
        check of a set at another input can prove both that it holds there and that it does not."""
        among = self.terms.among
        if not among or int(np.argmax(_planned(self.terms).guessed(self.terms, tally)[1])) in among:
            return self
        outside = tuple(c for c in range(self.terms.classes) if c not in among)
        return Question(replace(self.terms, among=outside))


def selection_requests(terms: Terms, tally: Tally) -> Requests:
    """Ask for the selection votes that `asked` needs."""
    return _planned(terms).selections(terms, tally)


def asked(terms: Terms, tally: Tally) -> Question:
    """The question that the selection votes decide on: the first one, from the class to the coarsest, that looks
    certain to as far as the budget asks; the coarsest where none does. A pure function of terms and selection votes.

    With probability at least 1 - alpha, what the votes prove of the question that is asked is true. Raises
    `CertificateError` where selection votes are missing.
    """
    rule = _planned(terms)
    route, counts = rule.guessed(terms, tally)
    for question in (questions := list(_questions(terms, counts))):
        sure = np.zeros_like(counts)
        sure[int(np.argmax(counts))] = counts.sum()
        enough = min(terms.budget.asked, _reach(question, sure, route))
        if _reach(question, counts, route) >= enough:
            return question
    return questions[-1]


def grouped_requests(terms: Terms, tally: Tally) -> Requests:
    """Ask for the passes of one certificate: the selection votes, then what the question that is asked needs."""
    yield from selection_requests(terms, tally)
    yield from asked(terms, tally).requests(tally)


def grouped_outcome(terms: Terms, tally: Tally) -> Outcome:
    """What the votes prove of the question that is asked, in classes and groups."""
    return asked(terms, tally).settle(tally)


def stated_question(terms: Terms, part: Part | None) -> Question:
    """The question that a certificate under `terms` answers with `part` (`Outcome.asked`), to be asked of other inputs,
    whose own votes do not choose another one: the finest map that has the group, the set, or the class (None)."""
    plain = replace(terms, groups=None, at_most=1)
    if part is None:
        return Question(plain)
    if terms.groups is None or not part.name:
        return Question(replace(plain, among=part.classes))
    parts = next(parts for parts in terms.groups.maps() if part in parts)
    return Question(replace(plain, classes=len(parts)), parts)


def check_requests(question: Question, tally: Tally) -> Requests:
    """Ask for the passes of a check of a stated question at another input; `question.facing(tally)` settles it."""
    if question.terms.among:
        yield from selection_requests(question.terms, tally)
    yield from question.facing(tally).requests(tally)


def prediction_requests(terms: Terms, tally: Tally, n: int) -> Requests:
    """Ask for the passes of one prediction: n a stage and level (`prediction`), and before them, where a coarser
    question may be asked, the selection votes that decide which."""
    if terms.coarser:
        yield from selection_requests(terms, tally)
    yield from prediction(tally, levels=len(terms.sigmas), alpha=terms.alpha, n=n, route=terms.route_kind)


def prediction_outcome(terms: Terms, tally: Tally) -> tuple[Part | None, list[int]]:
    """With probability at least 1 - alpha, what the dual classifier answers at the input to the question that is asked,
    or None. And the levels that remain, as of `predicted`."""
    question = asked(terms, tally) if terms.coarser else Question(terms)
    view, among = question.view(tally), question.terms.among
    guess = int(np.argmax(_planned(terms).guessed(terms, tally)[1])) if among else None
    for stream in view.looks if among else ():
        if stream.stage == CLASSIFIER:  # the others of the set are no rivals of the guess
            rivals = [c == guess or c not in among for c in range(terms.classes)]
            view.looks[stream] = [votes * rivals for votes in view.looks[stream]]
    answer, kept = predicted(view, levels=len(terms.sigmas), alpha=terms.alpha, route=terms.route_kind)
    if answer is None or (among and answer != guess):
        return None, kept
    return question.part(answer), kept


def _questions(terms: Terms, counts: Counts) -> Iterator[Question]:
    """All questions, from the class itself to the coarsest: of each map, where it guesses a group that no finer one
    guesses. So an answer is about the finest map that has its group."""
    plain = replace(terms, groups=None, at_most=1)
    yield Question(plain)
    seen = set[Part]()
    for parts in terms.groups.maps() if terms.groups else ():
        question = Question(replace(plain, classes=len(parts)), parts)
        part = question.part(int(np.argmax(question.merged(counts))))
        if part.name and part not in seen:
            yield question
        seen.add(part)
    order = np.argsort(-counts, kind="stable")
    for size in range(2, terms.at_most + 1):
        yield Question(replace(plain, among=tuple(sorted(int(c) for c in order[:size]))))


def _reach(question: Question, counts: Counts, route: int) -> float:
    """The class radius at the guessed route that the selection votes would certify at alpha = `DOUBT`."""
    merged, terms = question.merged(counts), replace(question.terms, alpha=DOUBT)
    plan = _planned(terms).plan(terms, route, int(np.argmax(merged)))
    mine = [(claim.stage, claim.level) == (CLASSIFIER, route) for claim in plan.claims]
    hits = [claim.hits(merged) if m else 0 for claim, m in zip(plan.claims, mine, strict=True)]
    lower = lower_bound(np.array(hits), int(merged.sum()), np.array([claim.alpha for claim in plan.claims]))
    return float(plan.class_radii(lower)[route])


def _planned(terms: Terms) -> PlannedRule:
    """The rule, of the kind that takes coarser questions (`checked_terms` lets no other pass)."""
    assert isinstance(terms.rule, PlannedRule)
    return terms.rule
