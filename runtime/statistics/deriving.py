"""Certificates of a changed network, from the votes for the old one and a few passes in which both saw the same noise.

For every event E (docs/mathematics.md, theorem 7): P_new(E) >= P_old(E) - P(old votes inside E, new does not). The
votes of the old certificate bound the first term, *paired passes* the second: both networks vote on the same noisy
copy, drawn afresh. A claim's share of alpha is split between both bounds, which the union bound joins: they need not be
independent. Source: Ugare et al. 2024 (arXiv 2305.19521, incremental randomized smoothing), with events in place of the
top class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.statistics.bounds import Array, upper_bound
from dualsmooth.runtime.statistics.rules.plan import Claim, Plan
from dualsmooth.runtime.statistics.rules.planned import PlannedRule, bounds_of, outcome_of
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import (
    CLASSIFIER,
    ESTIMATION,
    ESTIMATOR,
    MAX_COUNT,
    Counts,
    Request,
    Requests,
    Stream,
    Tally,
)

PAIRED_SHARE = 0.5
"""Share of each claim's alpha for the disagreement of the networks; the rest is for the old votes."""
MOST_CLASSES = 2048
"""Pairs of votes are counted in a table of classes x classes."""


@dataclass(eq=False)
class Pairs(Tally):
    """Votes of both networks on the same noisy copies: of each stream, how often the old one voted for a and the new
    one for b. The sampler sees a network that votes for one of the pairs, a * width + b."""

    def side(self, stream: Stream) -> int:
        """How many classes one network's votes are over."""
        return super().width(stream)

    def width(self, stream: Stream) -> int:
        return self.side(stream) ** 2

    def table(self, stream: Stream) -> Counts:
        """Counts [a, b] of a stream's pairs."""
        return self.counts(stream).reshape(self.side(stream), self.side(stream))

    def to_dict(self) -> dict[str, Any]:
        """Sparse, by stage and level, e.g. `{"classifier/2": {"3>3": 97, "3>5": 3}}`."""
        found = {}
        for stream in sorted(self.looks):
            table = self.table(stream)
            cells = zip(*(axis.tolist() for axis in np.nonzero(table)), strict=True)
            found[f"{stream.stage}/{stream.level}"] = {f"{a}>{b}": int(table[a, b]) for a, b in cells}
        return found

    @classmethod
    def from_dict(cls, data: Any, *, classes: int, levels: int) -> Pairs:
        """Inverse of `to_dict`. Raises `CertificateError`, `InputError`."""
        require_few(max(classes, levels))
        pairs = cls(classes, levels)
        if not isinstance(data, Mapping):
            raise CertificateError("pairs must be an object that maps stage/level to counts")
        known = {f"{s.stage}/{s.level}": s for s in every_stream(levels)}
        for name, cells in data.items():
            if name not in known or not isinstance(cells, Mapping):
                raise CertificateError(f"pairs: {str(name)[:60]!r} is not a stage and level with counts")
            stream = known[name]
            flat = np.zeros(pairs.width(stream), np.int64)
            for cell, count in cells.items():
                flat[_place(cell, pairs.side(stream), name)] = _count(count, name)
            pairs.record(stream, flat)
        return pairs


def every_stream(levels: int) -> list[Stream]:
    """The streams of bounded votes of both stages."""
    return [Stream(ESTIMATOR, 0, ESTIMATION), *(Stream(CLASSIFIER, s, ESTIMATION) for s in range(levels))]


def require_few(classes: int) -> None:
    """Raises `InputError` where a table of pairs would be too large."""
    if classes > MOST_CLASSES:
        raise InputError(f"{classes} classes; pairs of votes are counted for at most {MOST_CLASSES}: certify anew")


def require_derivable(terms: Terms) -> PlannedRule:
    """The rule, if it says its claims. Raises `InputError`."""
    if terms.coarser:
        raise InputError("certificates with groups or at_most are not derived; certify anew, or recompute without them")
    if isinstance(terms.rule, PlannedRule) and terms.rule.derives and terms.edition > 1:
        return terms.rule
    raise InputError(
        f"rule {terms.rule}, version {terms.edition}; certificates are derived under interval, paper or single of "
        "version 2: certify anew"
    )


def settle_derived(terms: Terms, tally: Tally, pairs: Pairs) -> Outcome:
    """With probability at least 1 - alpha over the old votes `tally` and the paired passes `pairs`, the radius is not
    above the true one of the *new* networks, provided that these were made without a look at the old votes.

    Label and route are guessed by the old selection votes. A stream without pairs proves nothing. Raises
    `CertificateError`, `InputError`. Source: docs/mathematics.md, theorem 7.
    """
    plan = require_derivable(terms).planned(terms, tally)
    old = replace(plan, claims=tuple(replace(c, alpha=(1 - PAIRED_SHARE) * c.alpha) for c in plan.claims))
    gaps = np.array([disagreement(claim, pairs) for claim in plan.claims])
    return outcome_of(plan, monotone(plan, np.maximum(0.0, bounds_of(old, terms.budget, tally) - gaps)))


def disagreement(claim: Claim, pairs: Pairs) -> float:
    """With probability at least 1 - `PAIRED_SHARE` times the claim's alpha: P(old votes inside the claim's event, new
    does not) <= the returned value; with `rivals`, for each class outside of it by itself. 1 where there are no
    pairs."""
    stream = Stream(claim.stage, claim.level, ESTIMATION)
    if stream not in pairs.looks:
        return 1.0
    table = pairs.table(stream)
    if claim.rivals:  # old votes for another class than c, new for c
        lost = np.delete(table.sum(0) - np.diag(table), claim.event).max()
    else:
        inside = list(claim.event)
        lost = table[inside].sum() - table[np.ix_(inside, inside)].sum()
    return float(upper_bound(int(lost), int(table.sum()), PAIRED_SHARE * claim.alpha))


def monotone(plan: Plan, lower: Array) -> Array:
    """Bounds [claims] of which none on a smaller event of the estimator is above one of the same share on a larger one.

    A level that nested events exclude then rests on its own claim alone. By votes it always does; of two nested events
    the smaller may have fewer disagreements, and its level's share of alpha would be spent twice.
    """
    found = lower.copy()
    mine = [(i, set(c.event), c.alpha) for i, c in enumerate(plan.claims) if c.stage == ESTIMATOR]
    for i, event, alpha in mine:
        found[i] = min(lower[j] for j, other, share in mine if event <= other and share == alpha)
    return found


def worth_pairing(terms: Terms, tally: Tally, passes: int) -> list[Stream]:
    """The streams whose pairs the radius needs, were all of so many to agree; none where even that would abstain.
    A matter of cost only."""
    kept = [stream for stream in every_stream(len(terms.sigmas)) if stream in tally.looks]
    best = settle_derived(terms, tally, agreeing(terms, kept, passes)).radius
    for stream in reversed(kept):
        fewer = [other for other in kept if other != stream]
        if settle_derived(terms, tally, agreeing(terms, fewer, passes)).radius == best:
            kept = fewer
    return kept


def agreeing(terms: Terms, streams: Iterable[Stream], passes: int) -> Pairs:
    """Pairs without a disagreement."""
    pairs = Pairs(terms.classes, len(terms.sigmas))
    for stream in streams:
        counts = np.zeros(pairs.width(stream), np.int64)
        counts[0] = passes
        pairs.record(stream, counts)
    return pairs


def pairing(streams: Iterable[Stream], passes: int) -> Requests:
    """Ask for so many paired passes of each stream."""
    if wanted := [Request(stream, passes) for stream in streams]:
        yield wanted


def _place(cell: Any, width: int, name: str) -> int:
    a, mark, b = str(cell).partition(">")
    if mark and all(x.isdecimal() and len(x) < 10 and str(int(x)) == x and int(x) < width for x in (a, b)):
        return int(a) * width + int(b)
    raise CertificateError(f"pairs: {name} counts {str(cell)[:20]!r}; expected OLD>NEW, each from 0 to {width - 1}")


def _count(count: Any, name: str) -> int:
    if type(count) is int and 0 < count <= MAX_COUNT:
        return count
    raise CertificateError(f"pairs: {name} has count {str(count)[:20]}; expected a positive integer")
