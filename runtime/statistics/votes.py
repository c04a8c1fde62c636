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


SURE = "sure"
"""What the sure votes of a stream are called in a certificate: "classifier/2/estimation/sure"."""


@dataclass(eq=False)
class Tally:
    """Counts per class of every stream; for each stream the cumulative counts at each look, in order. `sure`: at the
    same looks, how many of those votes were sure, for streams of networks that may be unsure (`BaseModel.sure`)."""

    classes: int
    levels: int
    looks: dict[Stream, list[Counts]] = field(default_factory=dict)
    sure: dict[Stream, list[Counts]] = field(default_factory=dict)

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

    def sure_counts(self, stream: Stream, look: int = -1) -> Counts:
        """The cumulative counts of sure votes at a look (the last one) [classes + 1]; those that were not sure are the
        last of them. Where no vote may be unsure, all are sure."""
        counts = self.looks[stream][look]
        sure = self.sure[stream][look] if stream in self.sure else counts
        return np.append(sure, counts.sum() - sure.sum())

    def record(self, stream: Stream, counts: Counts, sure: Counts | None = None) -> None:
        """Take a look: append cumulative counts, and those of sure votes where votes may be unsure."""
        self.looks.setdefault(stream, []).append(counts)
        if sure is not None:
            self.sure.setdefault(stream, []).append(sure)

    def total(self) -> int:
        """All passes of all streams, selection included."""
        return sum(self.passes(stream) for stream in self.looks)

    def to_dict(self) -> dict[str, Any]:
        """Sparse counts per look, e.g. `{"classifier/2/estimation": [{"3": 97, "5": 3}]}`, and so those of sure votes:
        `{"classifier/2/estimation/sure": [{"3": 41}]}`."""
        every = [
            *((stream, looks) for stream, looks in self.looks.items()),
            *(((*stream, SURE), looks) for stream, looks in self.sure.items()),
        ]
        return {
            "/".join(map(str, name)): [{str(c): int(look[c]) for c in np.flatnonzero(look)} for look in looks]
            for name, looks in sorted(every, key=lambda item: item[0])
        }

    @classmethod
    def from_dict(cls, data: Any, *, classes: int, levels: int) -> Tally:
        """Inverse of `to_dict`; raises `CertificateError` for anything that no sampling could have produced."""
        tally = cls(classes, levels)
        if not isinstance(data, Mapping):
            raise CertificateError("votes must be an object that maps streams to lists of looks")
        room, sure = MAX_COUNTS, {}
        for name, looks in data.items():
            if str(name).startswith(f"{CLASSIFIER}/") and (of := str(name).removesuffix(f"/{SURE}")) != name:
                sure[of] = looks
                continue
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
            room -= len(looks) * tally.width(stream) * (2 if f"{name}/{SURE}" in data else 1)
            if room < 0:
                raise CertificateError(f"votes: more than {MAX_COUNTS} counts, zeros included; expected fewer looks")
            for look in looks:
                tally.record(stream, _dense(look, tally.width(stream), name))
            totals = [int(c.sum()) for c in tally.looks[stream]]
            grows = all(np.all(b >= a) for a, b in pairwise(tally.looks[stream]))
            if totals[0] < 1 or sorted(set(totals)) != totals or not grows:
                raise CertificateError(f"votes: the looks of {name} do not grow; expected cumulative counts")
        for stream in tally.looks:
            if (looks := sure.pop("/".join(map(str, stream)), None)) is not None:
                tally.sure[stream] = _sure(looks, tally.looks[stream], "/".join(map(str, stream)))
        if sure:
            raise CertificateError(f"votes: sure ones of {min(sure)[:60]!r}, of which there are no votes")
        return tally


def _sure(data: Any, looks: list[Counts], name: str) -> list[Counts]:
    """Counts of sure votes at each look of a stream's counts: no more than those, and growing no faster."""
    if not isinstance(data, list) or len(data) != len(looks):
        raise CertificateError(f"votes: {name}/{SURE} must list {len(looks)} looks, as {name} does")
    found = [_dense(look, looks[0].size, f"{name}/{SURE}") for look in data]
    none = np.zeros_like(looks[0])
    unsure = [none, *(counts - sure for counts, sure in zip(looks, found, strict=True))]
    if any(np.any(after < before) for series in ([none, *found], unsure) for before, after in pairwise(series)):
        raise CertificateError(f"votes: {name}/{SURE} counts more votes than {name}, or fewer at a later look")
    return found


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
