"""Votes: which streams of passes there are, and what they counted. The only data that a certificate rests on."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError

Counts = npt.NDArray[np.int64]


class Stage(StrEnum):
    """Which base model votes."""

    ESTIMATOR = "estimator"
    CLASSIFIER = "classifier"


class Purpose(StrEnum):
    """What votes are for: to guess the route or the label, to be bounded, or to predict without a radius."""

    SELECTION = "selection"
    ESTIMATION = "estimation"
    PREDICTION = "prediction"


ESTIMATOR, CLASSIFIER = Stage
SELECTION, ESTIMATION, PREDICTION = Purpose
MAX_LOOKS = 200
MAX_COUNTS = 1 << 25
"""Looks, and counts of all looks (256 MiB): more than budgets take; keeps a hostile file from filling the memory."""
MAX_COUNT = 1 << 40
"""Votes of one class: no sum of so many overflows, which could make any number of votes look like the budget's."""


class Stream(NamedTuple):
    """One independent sequence of passes: a stage, a level (0 for the estimator), and what its votes are for.

    Selection votes guess the route or the label, estimation votes are bounded; no vote is ever used for both.
    """

    stage: Stage
    level: int
    purpose: Purpose


class Request(NamedTuple):
    """Bring a stream to `until` passes in all."""

    stream: Stream
    until: int


Requests = Generator[list[Request], None, None]
"""A process that asks for passes: each list must stand in the tally before it goes on."""


@dataclass(eq=False)
class Tally:
    """Counts per class of every stream; for each stream the cumulative counts at each look, in order."""

    classes: int
    levels: int
    looks: dict[Stream, list[Counts]] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        mine = (self.classes, self.levels, self.to_dict())
        return isinstance(other, Tally) and mine == (other.classes, other.levels, other.to_dict())

    __hash__ = None  # type: ignore[assignment]  # it grows

    def width(self, stream: Stream) -> int:
        """How many classes the votes of a stream are over."""
        return self.levels if stream.stage == ESTIMATOR else self.classes

    def counts(self, stream: Stream) -> Counts:
        """The cumulative counts at the last look; zeros before the first."""
        looks = self.looks.get(stream)
        return looks[-1] if looks else np.zeros(self.width(stream), np.int64)

    def passes(self, stream: Stream) -> int:
        return int(self.counts(stream).sum())

    def record(self, stream: Stream, counts: Counts) -> None:
        """Take a look: append cumulative counts."""
        self.looks.setdefault(stream, []).append(counts)

    def total(self) -> int:
        """All passes of all streams, selection included."""
        return sum(self.passes(stream) for stream in self.looks)

    def to_dict(self) -> dict[str, Any]:
        """Sparse counts per look, e.g. `{"classifier/2/estimation": [{"3": 97, "5": 3}]}`."""
        return {
            "/".join(map(str, stream)): [{str(c): int(look[c]) for c in np.flatnonzero(look)} for look in looks]
            for stream, looks in sorted(self.looks.items(), key=lambda item: item[0])
        }

    @classmethod
    def from_dict(cls, data: Any, *, classes: int, levels: int) -> Tally:
        """Inverse of `to_dict`; raises `CertificateError` for anything that no sampling could have produced."""
        tally = cls(classes, levels)
        if not isinstance(data, Mapping):
            raise CertificateError("votes must be an object that maps streams to lists of looks")
        room = MAX_COUNTS
        for name, looks in data.items():
            stage, level, purpose = ([*str(name).split("/"), "", ""])[:3]
            known = stage in (ESTIMATOR, CLASSIFIER) and purpose in (SELECTION, ESTIMATION) and name.count("/") == 2
            limit = 1 if stage == ESTIMATOR else levels
            if not (
                known and len(level) < 10 and level.isdecimal() and str(int(level)) == level and int(level) < limit
            ):
                raise CertificateError(f"votes: {str(name)[:60]!r} is not a stream; expected stage/level/purpose")
            if not isinstance(looks, list) or not 1 <= len(looks) <= MAX_LOOKS:
                raise CertificateError(f"votes: {name} must list 1 to {MAX_LOOKS} looks")
            stream = Stream(Stage(stage), int(level), Purpose(purpose))
            room -= len(looks) * tally.width(stream)
            if room < 0:
                raise CertificateError(f"votes: more than {MAX_COUNTS} counts, zeros included; expected fewer looks")
            for look in looks:
                tally.record(stream, _dense(look, tally.width(stream), name))
            totals = [int(c.sum()) for c in tally.looks[stream]]
            grows = all(np.all(b >= a) for a, b in pairwise(tally.looks[stream]))
            if totals[0] < 1 or sorted(set(totals)) != totals or not grows:
                raise CertificateError(f"votes: the looks of {name} do not grow; expected cumulative counts")
        return tally


def _dense(look: Any, width: int, name: str) -> Counts:
    counts = np.zeros(width, np.int64)
    if not isinstance(look, Mapping):
        raise CertificateError(f"votes: a look of {name} must map classes to counts")
    for key, value in look.items():
        if not (
            isinstance(key, str) and key.isdecimal() and len(key) < 10 and int(key) < width and str(int(key)) == key
        ):
            raise CertificateError(f"votes: {name} counts class {str(key)[:20]!r}; expected 0 to {width - 1}")
        if type(value) is not int or not 0 < value <= MAX_COUNT:
            raise CertificateError(
                f"votes: {name} has count {str(value)[:20]} for class {key}; expected a positive integer"
            )
        counts[int(key)] = value
    return counts
