"""The contract of rules: what is asked, what the votes prove, and what a rule must say to be one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from dualsmooth.runtime.statistics.accuracy import correct_radius
from dualsmooth.runtime.statistics.budgets.budget import Budget
from dualsmooth.runtime.statistics.groups import Groups, Part
from dualsmooth.runtime.statistics.routes import MODE
from dualsmooth.runtime.statistics.votes import Requests, Tally


@dataclass(frozen=True)
class Terms:
    """What is certified and how: noise levels, number of classes, alpha, rule, route and budget. Made and checked by
    `certification.checked_terms`. `sigma_e`: None where there is one level and no router; `route_kind` is then
    `none`.

    `groups`, `at_most`: the coarser questions that may be asked in place of the class (`questions`): its group, or
    which set of at most so many classes it is in. `among`: the set of the question that is asked.

    `sure`: of each level above the smallest, the softmax from which on a vote is sure; empty where every vote is.
    """

    sigmas: tuple[float, ...]
    sigma_e: float | None
    classes: int
    alpha: float
    rule: Rule
    route_kind: str
    budget: Budget
    groups: Groups | None = None
    at_most: int = 1
    among: tuple[int, ...] = ()
    sure: tuple[float, ...] = ()

    @property
    def coarser(self) -> bool:
        """Whether a coarser question may be asked."""
        return self.groups is not None or self.at_most > 1

    @property
    def edition(self) -> int:
        """The version of the certificate, which fixes how alpha is shared."""
        return self.rule.edition

    @property
    def subject(self) -> str:
        """Which smoothed classifier keeps its label, in words."""
        level = self.rule.only_level(self)
        return self.rule.subject(self) if level is None else f"the classifier smoothed at sigma {self.sigmas[level]!r}"

    def tally(self) -> Tally:
        return Tally(self.classes, len(self.sigmas))

    def to_dict(self) -> dict[str, Any]:
        """What a person chose: alpha, rule, route and budget, and coarser questions where there are some."""
        chosen = {"alpha": self.alpha, "rule": str(self.rule), "route": self.route_kind, "budget": str(self.budget)}
        return chosen | self.coarser_dict()

    def coarser_dict(self) -> dict[str, Any]:
        """The coarser questions that may be asked; empty where there are none, as in certificates of before."""
        groups = {} if self.groups is None else {"groups": self.groups.to_dict()}
        return groups | ({"at_most": self.at_most} if self.at_most > 1 else {})

    def words(self) -> str:
        """The same as one text; part of the keys of the noise."""
        return json.dumps({"edition": self.edition, **self.to_dict()}, sort_keys=True)


@dataclass(frozen=True)
class Outcome:
    """What the votes prove. With probability at least 1 - alpha over the votes: the dual classifier returns `label`
    everywhere closer to the input than `radius` (L2, input units). `label` is None and `radius` 0 on abstention.

    Where a coarser question was asked, `asked` is its guessed answer, a group or set of classes: the same then holds of
    it in place of a label, and `label` is None.

    `route` is the guessed level; `route_radius` the distance within which no other level is the route; `class_radius`
    the radius of the classifier at that level; `exclusion` and `class_radii` are e_s and A_s by level
    (docs/mathematics.md, theorem 3). Each of these holds with probability at least 1 - alpha by itself; they need not
    hold together.
    """

    label: int | None
    radius: float
    route: int
    guess: int
    route_radius: float
    class_radius: float
    exclusion: tuple[float, ...] = ()
    class_radii: tuple[float, ...] = ()
    asked: Part | None = None

    @property
    def answer(self) -> tuple[int, ...]:
        """The classes that the answer stands for: one of a label, several of a group, none on abstention."""
        if self.asked is not None:
            return self.asked.classes if self.radius > 0 else ()
        return () if self.label is None else (self.label,)

    @property
    def unsettled(self) -> str:
        """What an abstention leaves open: the label, or, where the guessed level's classifier is sure of one, the
        noise level."""
        return "the noise level, whose classifiers do not share a label" if self.class_radius > 0 else "the label"

    def covered_radius(self, truth: int) -> float:
        """The certified radius where the answer, label or group, holds the true class; -1 where it does not."""
        return self.radius if truth in self.answer else -1.0

    def correct_radius(self, truth: int) -> float:
        """`accuracy.correct_radius` of this outcome."""
        return correct_radius(self.label, self.radius, truth)


class Legend(NamedTuple):
    """How a rule is shown: the name in the legend, what it means in one line, the place of its colour among the eight
    of a report, whether its curve is dashed, as a measure for the others, and how R is read off the bars of e_s and A_s
    of one image, where that is simple."""

    name: str
    meaning: str
    colour: int
    dashed: bool = False
    reading: str = ""


@dataclass(frozen=True)
class Rule(ABC):
    """How votes prove a radius. A rule is a value without state, and every method is pure.

    `requests` and `settle` depend on the terms and on the votes in the tally, never on noise, time or other images.
    Which label and route are guessed, and how alpha is shared, may depend on the terms and on *selection* votes alone:
    those votes are in no bound, so the shares are fixed before the votes that are bounded. When to stop may depend on
    all votes, since every bound holds at all of its looks together (`Budget.lower`).

    A new rule is a file beside this one, with a row in the table of `rules`; the tests of all rules then hold for it
    by its being there.
    """

    kind: ClassVar[str]
    """Its word in texts; the whole name, unless the rule has parameters."""
    form: ClassVar[str]
    """How it is written, as help texts say it."""
    legend: ClassVar[Legend]
    default_route: ClassVar[str] = MODE
    edition: ClassVar[int] = 2
    """The version of the certificates that it makes."""
    routes: ClassVar[bool] = False
    """Whether it is about how the router and the levels go together, and nothing but `single` where there is none."""
    may_ask_all: ClassVar[bool] = False
    """Whether one image may take the votes of the router and of every level."""
    takes_coarser: ClassVar[bool] = False
    """Whether a group or a set of classes may be asked for in place of the class (theorems 8 and 9)."""
    predicts: ClassVar[bool] = False
    """Whether a prediction without a radius (theorem 6) may be asked for under this name."""

    def __str__(self) -> str:
        """The canonical name, which certificates state."""
        return self.kind

    @classmethod
    def named(cls, text: str, sigmas: tuple[float, ...]) -> Self | None:
        """The rule of a text; None where the text is of another kind. Raises `InputError` for a parameter that does not
        fit `sigmas`."""
        return cls() if text == cls.kind else None

    @classmethod
    def all_named(cls, sigmas: tuple[float, ...]) -> list[str]:
        """The names of all rules of this kind for a bundle of these noise levels."""
        return [cls.kind]

    def check_budget(self, budget: Budget) -> None:  # noqa: B027  # all budgets, unless a rule says otherwise
        """Raises `InputError` for a budget that the rule does not take. By default it takes all."""

    def only_level(self, terms: Terms) -> int | None:
        """The level that all inputs are classified at; None where inputs choose theirs."""
        return 0 if len(terms.sigmas) == 1 else None

    def streams(self, terms: Terms) -> tuple[int, int]:
        """How many streams (the estimator, and a classifier at a level) it bounds the votes of: at least, at most."""
        return (2, 1 + len(terms.sigmas)) if self.only_level(terms) is None else (1, 1)

    @abstractmethod
    def subject(self, terms: Terms) -> str:
        """Which smoothed classifier keeps its label, in words, where inputs choose their level. Rules that differ here
        certify different classifiers, whose labels may differ, and both be right."""

    @abstractmethod
    def requests(self, terms: Terms, tally: Tally) -> Requests:
        """Ask for the passes of one certificate, as few as `settle` needs. After each resumption the requested looks
        must stand in `tally`. No stream is asked for beyond the looks that the budget fixes."""

    @abstractmethod
    def settle(self, terms: Terms, tally: Tally) -> Outcome:
        """What the votes prove: with probability at least 1 - alpha over them, `radius` is not above the true one. More
        votes than the rule asked for do no harm. Raises `CertificateError` where some that it needs are missing."""

    @abstractmethod
    def best_radius(self, terms: Terms) -> float:
        """The radius if every vote were for one label and one route, the best one; not rounded. What `foresight` asks
        before a pass is spent."""
