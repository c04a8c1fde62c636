"""How long a run will take: parts with a range each, corrected by those that are done. The arithmetic alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dualsmooth.runtime.evaluation.progress import clock_text

TRAINING, VOTES = "training", "votes"
MARGIN = 1.1
"""What comes between the steps that are timed: reading, checkpoints, other work of the machine."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """A network, or votes, that is still to be made: from `low` to `high` seconds. Parts of one `kind` err alike."""

    name: str
    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class Pace:
    """What training a network takes, by epoch: seconds a step, from and to; and seconds for each image before it, where
    votes are counted between the epochs."""

    step: tuple[Span, ...]
    review: tuple[float, ...]

    def seconds(self, images: int, batch: int, first: int = 0) -> Span:
        """From and to, for the epochs from `first` on, on `images` images in batches of `batch`."""
        steps = images // min(batch, images)
        low, high = (steps * sum(span[end] for span in self.step[first:]) for end in (0, 1))
        votes = images * sum(self.review[first:])
        return low + votes, (high + votes) * MARGIN


def span_of(times: Sequence[float]) -> Span:
    """The means of the faster and of the slower half of some times: what many of them will average to lies between."""
    ordered = sorted(times)
    half = (len(ordered) + 1) // 2
    return sum(ordered[:half]) / half, sum(ordered[-half:]) / half


class Forecast:
    """The parts that are left; says how long they take, and what is left whenever one is done.

    A part that took longer than its range, or less, moves the ranges of the parts of its kind by that factor.
    """

    def __init__(
        self, parts: Sequence[Part] = (), say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._left = {part.name: part for part in parts}
        self._say, self._clock = say, clock
        self._first, self._start = self.total, clock()

    @property
    def total(self) -> Span:
        """Seconds that are left, from and to."""
        return sum(part.low for part in self._left.values()), sum(part.high for part in self._left.values())

    def lines(self) -> list[str]:
        """The forecast, a line a part and the total."""
        parts = [f"  {part.name}: {span_text((part.low, part.high))}" for part in self._left.values()]
        return ["forecast, in minutes:seconds:", *parts, f"  in total: {span_text(self.total)}"]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside, correct what is left, and say so; what was not forecast is let pass."""
        start = self._clock()
        yield
        if part := self._left.pop(name, None):
            self._correct(part, self._clock() - start)

    def _correct(self, part: Part, seconds: float) -> None:
        off = seconds / min(max(seconds, part.low), part.high) if part.high > 0 else 1.0
        for name, other in self._left.items():
            if other.kind == part.kind:
                self._left[name] = replace(other, low=other.low * off, high=other.high * off)
        text = f"{part.name} took {clock_text(seconds)} (forecast {span_text((part.low, part.high))})"
        if self._left:
            self._say(f"{text}; left: {span_text(self.total)}")
        else:
            taken = clock_text(self._clock() - self._start)
            self._say(f"{text}; in total {taken} (first forecast {span_text(self._first)})")


def span_text(span: Span) -> str:
    """`1:05 to 2:10`: rounded down and up to seconds."""
    return f"{clock_text(math.floor(span[0]))} to {clock_text(math.ceil(span[1]))}"
