"""One certificate as a process: which passes to draw next, until the budget is satisfied; then the outcome.

`certification` is a generator: it yields the requests it wants fulfilled before it goes on, so that a driver can keep
many images in flight and fill whole batches. What it decides depends on its own votes only, never on its neighbours.
`settle` recomputes an outcome from the votes alone; the generator ends with it, and so does `verify`.
"""

from __future__ import annotations

from dataclasses import replace

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.statistics.bounds import require_alpha
from dualsmooth.runtime.statistics.budgets import CALLS, Budget
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.questions import grouped_outcome, grouped_requests
from dualsmooth.runtime.statistics.routes import NONE, checked_route
from dualsmooth.runtime.statistics.rules import edition_1, rule_named
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATION,
    ESTIMATOR,
    SELECTION,
    Request,
    Requests,
    Stream,
    Tally,
)

MIN_ALPHA = 1e-100
"""Shares of a smaller alpha would round to 0."""


def checked_terms(
    sigmas: tuple[float, ...],
    sigma_e: float | None,
    classes: int,
    *,
    alpha: float,
    rule: str,
    route: str | None,
    budget: Budget,
    groups: Groups | None = None,
    at_most: int = 1,
    sure: tuple[float, ...] = (),
) -> Terms:
    """Terms from what a person states. Raises `InputError` for an alpha outside (0, 0.1], an unknown rule or route, or
    a budget or coarser question that the rule does not take. `sigma_e`: None where there is one level and no router.
    `sure`: of each level above the smallest, the softmax from which on a vote is sure; empty where every vote is."""
    require_alpha(alpha, MIN_ALPHA)
    if not isinstance(budget, Budget):
        raise InputError(f"budget is {budget!r}; expected {CALLS}")
    found = rule_named(rule, sigmas, router=sigma_e is not None)
    kind = NONE if sigma_e is None else checked_route(route, found.default_route)
    if sigma_e is None and route not in (None, NONE):
        raise InputError(f"route {str(route)[:40]!r} of a bundle with one noise level and no router; leave it out")
    found.check_budget(budget)
    terms = Terms(sigmas, sigma_e, classes, float(alpha), found, kind, budget, groups, at_most, sure=sure)
    _check_coarser(terms)
    return terms


def _check_coarser(terms: Terms) -> None:
    """Raises `InputError` for coarser questions that do not fit the classes or the rule."""
    most = terms.at_most
    if type(most) is not int or not 1 <= most < terms.classes:
        raise InputError(f"at_most is {str(most)[:40]}; expected 1 to {terms.classes - 1} of {terms.classes} classes")
    if terms.groups is not None and (most > 1 or terms.groups.count != terms.classes):
        fault = f"at_most {most}; choose one of them" if most > 1 else f"{terms.classes} classes; expected its groups"
        raise InputError(f"groups of {terms.groups.count} classes with {fault}")
    if terms.coarser and not terms.rule.takes_coarser:
        raise InputError(
            f"rule {terms.rule} takes neither groups nor at_most; expected interval, paper or single:SIGMA"
        )


def of_edition_1(terms: Terms) -> Terms:
    """The same words as certificates of version 1 meant them."""
    return replace(terms, rule=edition_1.rule_of(terms.rule), budget=edition_1.budget_of(terms.budget))


def certification(terms: Terms, tally: Tally, *, all_levels: bool = False) -> Requests:
    """Ask for the passes of one certificate. After each resumption the requested looks must stand in `tally`.

    `all_levels` draws the selection votes and all bounded votes of every stream, whatever the rule needs: rules can
    then be compared offline on the same votes.
    """
    if not all_levels:
        yield from (grouped_requests if terms.coarser else terms.rule.requests)(terms, tally)
        return
    levels = range(len(terms.sigmas))
    router = [] if terms.sigma_e is None else [Stream(ESTIMATOR, 0, SELECTION)]
    every = [*router, *(Stream(CLASSIFIER, s, SELECTION) for s in levels)]
    yield [Request(stream, terms.budget.selection) for stream in every]
    bounded = [stream._replace(purpose=ESTIMATION) for stream in every]
    for size in terms.budget.looks:
        yield [Request(stream, size) for stream in bounded]


def settle(terms: Terms, tally: Tally) -> Outcome:
    """The outcome that the votes in `tally` prove under `terms`; a pure function of both.

    Raises `CertificateError` where votes that the rule needs are missing, or looks do not follow the budget.
    """
    return grouped_outcome(terms, tally) if terms.coarser else terms.rule.settle(terms, tally)


def check_looks(terms: Terms, tally: Tally) -> None:
    """Raises `CertificateError` unless all streams, needed or not, have the looks that the budget fixes: one of
    selection votes, and bounded ones from the first on. Without a router there are no votes of an estimator; sure
    votes are told apart where some may not be, and nowhere else."""
    for stream, looks in tally.looks.items():
        above = bool(terms.sure) and stream.stage == CLASSIFIER and stream.level > 0
        if above != (stream in tally.sure):
            name = "/".join(map(str, stream))
            raise CertificateError(
                f"the sure votes of {name} are not told apart; every level above the smallest needs that"
                if above
                else f"there are sure votes of {name}, where every vote is sure"
            )
        if stream.stage == ESTIMATOR and terms.sigma_e is None:
            raise CertificateError("there are votes of an estimator, but no sigma_e that they were drawn at")
        fixed = (terms.budget.selection,) if stream.purpose == SELECTION else terms.budget.looks
        sizes = tuple(int(counts.sum()) for counts in looks)
        if sizes != fixed[: len(sizes)]:
            raise CertificateError(
                f"the looks of {'/'.join(map(str, stream))} are at {str(sizes)[:80]} votes; the budget {terms.budget} "
                f"fixes {str(fixed)[:80]}"
            )
