"""How often a certificate with groups claims too much, by enumeration of all votes (docs/mathematics.md, theorem 8).

Selection votes decide which question is asked: the class, or its group. All of alpha is spent on that one. Three
classes, a and b of one group; true probabilities are put where the claims of both questions fail as often as they can.

    python scripts/exact_groups.py --out docs/exact-groups.md
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from exact_shares import Floats, World, compositions, error
from scipy import special, stats

from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.questions import Question, asked
from dualsmooth.runtime.statistics.rules.plan import label_claims
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Counts, Stream, Tally

N, N0, ALPHA = 12, 9, 0.1
JUST_BELOW = 1 - 1e-5
"""Below a bound by more than radii are rounded."""
GROUPS = Groups.of({"ab": [0, 1]}, 3)
Way = Callable[[Terms, Tally], Outcome]


class Choice(NamedTuple):
    """What selection votes decide: the question, the route, and selection votes [classes] that decide so."""

    question: Question
    route: int
    selected: tuple[int, ...]


def terms_of(sigmas: tuple[float, ...], rule: str, *, at_most: int = 1) -> Terms:
    groups = GROUPS if at_most == 1 else None
    return checked_terms(
        sigmas, 1.0, 3, alpha=ALPHA, rule=rule, route=None, budget=Fixed(N, n0=N0), groups=groups, at_most=at_most
    )


def as_it_is(terms: Terms, tally: Tally) -> Outcome:
    """The selection votes decide which question is asked."""
    return settle(terms, tally)


def by_bounded_votes(terms: Terms, tally: Tally) -> Outcome:
    """Wrong: the group answers where the class was not certified, by the votes that are bounded."""
    return _both(terms, tally, lambda fine, group: fine if fine.radius > 0 else group)


def group_by_bounded_votes(terms: Terms, tally: Tally) -> Outcome:
    """Wrong: where the class was not certified, the group that the bounded votes favour is tried on the same votes."""
    (stream,) = [stream for stream in tally.looks if stream.purpose == ESTIMATION]
    reused = _tally(terms, {stream: tally.counts(stream), stream._replace(purpose=SELECTION): tally.counts(stream)})
    return _both(
        terms, tally, lambda fine, _: fine if fine.radius > 0 else _both(terms, reused, lambda _, group: group)
    )


def _both(terms: Terms, tally: Tally, pick: Callable[[Outcome, Outcome], Outcome]) -> Outcome:
    plain = replace(terms, groups=None)
    (parts,) = GROUPS.maps()
    question = Question(replace(plain, classes=len(parts)), parts)
    group = settle(question.terms, question.view(tally))
    part = question.part(group.guess)
    named = (
        replace(group, label=None, asked=part)
        if part.name
        else replace(group, label=None if group.label is None else part.classes[0])
    )
    return pick(settle(plain, tally), named)


WAYS: dict[str, Way] = {
    "selection votes decide": as_it_is,
    "wrong: bounded votes decide": by_bounded_votes,
    "wrong: bounded votes choose the group": group_by_bounded_votes,
}


def true_radius(outcome: Outcome, labels: Floats, sigma: float) -> float:
    """How far the answer of one classifier holds, with its true probabilities [classes]; of a set, for the class in it
    that reaches farthest."""
    merged = outcome.asked is not None and outcome.asked.name
    inside = np.isin(np.arange(len(labels)), outcome.answer)
    rival = float(labels[~inside].max())
    top = float(labels[inside].sum() if merged else labels[inside].max())
    z, other = special.ndtri([top, rival])
    return sigma * max(0.0, float(z), float(z - other) / 2)


def choices(terms: Terms, world: World) -> dict[Choice, float]:
    """What the selection votes decide, and how likely it is."""
    rule = terms.rule
    assert isinstance(rule, PlannedRule)
    found: dict[tuple[Question, int, int], list[tuple[Choice, float]]] = defaultdict(list)
    levels = len(terms.sigmas)
    routes = compositions(N0, levels) if levels > 1 else np.array([[N0]])
    chances = np.asarray(stats.multinomial.pmf(routes, N0, world.router)).reshape(-1)
    for votes, chance in zip(routes, chances.tolist(), strict=True):
        counts = compositions(N0, 3)
        for level in range(levels):
            weights = np.asarray(stats.multinomial.pmf(counts, N0, world.labels[level])).reshape(-1)
            for row, weight in zip(counts, weights.tolist(), strict=True):
                tally = _tally(
                    terms, {Stream(ESTIMATOR, 0, SELECTION): votes, Stream(CLASSIFIER, level, SELECTION): row}
                )
                if rule.guessed_route(terms, tally) == level and chance * weight > 0:
                    question = asked(terms, tally)
                    key = question, level, int(np.argmax(question.merged(row)))
                    found[key].append((Choice(question, level, tuple(row.tolist())), float(chance * weight)))
    return {ways[0][0]: sum(weight for _, weight in ways) for ways in found.values()}


def _tally(terms: Terms, counts: dict[Stream, Counts]) -> Tally:
    tally = terms.tally()
    for stream, votes in counts.items():
        tally.record(stream, np.asarray(votes, np.int64))
    return tally


def enumerated(way: Way, terms: Terms, labels: Floats) -> float:
    """The exact probability that a certificate of one sigma claims too much."""
    world, total = World(np.ones(1), labels[None], terms.sigmas, 0), 0.0
    counts = compositions(N, 3)
    weights = np.asarray(stats.multinomial.pmf(counts, N, labels)).reshape(-1)
    for choice, chance in choices(terms, world).items():
        for row, weight in zip(counts, weights, strict=True):
            streams = {
                Stream(CLASSIFIER, 0, SELECTION): np.array(choice.selected),
                Stream(CLASSIFIER, 0, ESTIMATION): row,
            }
            outcome = way(terms, _tally(terms, streams))
            if outcome.radius > 0 and outcome.radius > true_radius(outcome, labels, terms.sigmas[0]) + 1e-12:
                total += chance * float(weight)
    return total


def planned(terms: Terms, world: World) -> float:
    """The same with several levels, by the claims of the question that is asked."""
    total = 0.0
    for choice, chance in choices(terms, world).items():
        question = choice.question
        rule = question.terms.rule
        assert isinstance(rule, PlannedRule)
        guess = int(np.argmax(question.merged(np.array(choice.selected))))
        plan = rule.plan(question.terms, choice.route, guess)
        labels = world.labels
        if question.parts:
            labels = np.stack([labels[:, list(part.classes)].sum(axis=1) for part in question.parts], axis=1)
        total += chance * error(plan, world._replace(labels=labels), n=N)
    return total


def worlds() -> Iterator[Floats]:
    """Probabilities of a, b and c where the claims on a and on its group are as hard as they can be, or nearly so."""
    fine, group = label_claims(0, 0, 3, ALPHA)[0].alpha, label_claims(0, 0, 2, ALPHA)[0].alpha
    for k, j in product(range(4, N), range(7, N + 1)):
        a = float(lower_bound(k, N, fine)) * JUST_BELOW
        ab = float(lower_bound(j, N, group)) * JUST_BELOW
        if a < ab and a >= ab - a:
            yield np.array([a, ab - a, 1 - ab])


def worst(way: Way, *, at_most: int = 1) -> float:
    """The largest error of one sigma over `worlds`."""
    terms = terms_of((1.0,), "single:1.0", at_most=at_most)
    return max(enumerated(way, terms, labels) for labels in worlds())


def worst_of_two_levels(*, at_most: int = 1) -> float:
    """The largest error of the interval rule over two levels that bound the radius in turn."""
    largest = 0.0
    for labels, share in product(list(worlds())[::4], (0.3, 0.7)):
        other = np.array([0.98, 0.01, 0.01])
        for sigmas, both in (((1.0, 100.0), [labels, other]), ((1.0, 1.01), [other, labels])):
            world = World(np.array([share, 1 - share]), np.array(both), sigmas, 0)
            largest = max(largest, planned(terms_of(sigmas, "interval", at_most=at_most), world))
    return largest


PAGE = f"""# Groups in place of an abstention: exact errors

How often a certificate that may answer with a group claims more than is true, at the worst case that was found, by
enumeration of every possible vote count: three classes, two of them a group, {N0} selection votes and {N} bounded
votes a stream, alpha = {ALPHA:g}; no sampling. Up to alpha: sound. `wrong` is a plausible mistake. `python
scripts/exact_groups.py` makes this page; the theorem is in [mathematics.md](mathematics.md).

| way | one sigma | two levels |
| --- | ---: | ---: |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/exact-groups.md"))
    args = parser.parse_args()
    lines = []
    for name, way in WAYS.items():
        two = f"{worst_of_two_levels():.4f}" if way is as_it_is else ""
        lines.append(f"| class or group: {name} | {worst(way):.4f} | {two} |")
    sets = worst(as_it_is, at_most=2), worst_of_two_levels(at_most=2)
    lines.append(f"| class or set of two: selection votes decide | {sets[0]:.4f} | {sets[1]:.4f} |")
    write_atomically(args.out, PAGE + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
