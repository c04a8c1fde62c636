"""How long work will take, said once, from what its beginning took. An estimate, with no guarantee."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualsmooth.runtime.evaluation.forecast import capacity
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.statistics.rules.rule import Terms

FIRST = 1.0
"""Seconds of work that are measured before anything is said."""
PATIENCE = 10.0
"""Seconds after which it is said however wide the range is."""
WIDE = 5.0
"""Ratio of the ends of a range that is worth waiting for some finished images."""
ENOUGH = 32
"""Finished images whose passes say what the others will take."""
WORTH = 20.0
"""Work that ends within so many seconds needs no forecast."""


def passes_between(terms: Terms, *, all_levels: bool) -> tuple[int, int]:
    """The fewest and the most passes that an image can take: those of as few streams as the rule has, up to their first
    look, and those of as many as it has, up to their last."""
    budget = terms.budget
    if all_levels:
        every = (1 + len(terms.sigmas)) * (budget.selection + budget.looks[-1])
        return every, every
    fewest, most = terms.rule.streams(terms)
    return fewest * (budget.selection + budget.looks[0]), most * (budget.selection + budget.looks[-1])


class Outlook:
    """Says once how long `images` certificates of `between` passes each will take, where that is worth saying."""

    def __init__(self, images: int, between: tuple[int, int], say: Callable[[str], None]) -> None:
        self._images, self._between, self._say = images, between, say
        self._finished: list[int] = []
        self._start: tuple[int, float] | None = None
        self._silent = images < 1

    def finished(self, passes: int) -> None:
        """An image is done that took so many passes."""
        self._finished.append(passes)

    def look(self, meter: Meter) -> None:
        """Say it, if enough has been measured: `Meter.watch`."""
        if self._start is None:  # the first batch pays for what begins once: self-tests, memory, threads
            self._start = meter.passes, meter.seconds
        passes, seconds = meter.passes - self._start[0], meter.seconds - self._start[1]
        if self._silent or seconds < FIRST:
            return
        low, high = self._expected()
        if high > WIDE * low and seconds < PATIENCE:
            return
        self._silent = True
        rate = passes / seconds
        ends = [capacity(np.array([n]), self._images, rate=rate, replica_cores=1, cores=1).hours for n in (low, high)]
        if 3600 * ends[1] < WORTH:
            return
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        images = f"{self._images:,} image{'s' if self._images > 1 else ''}"
        self._say(f"{_spread(*ends)}: {images} x {each} passes, at {rate:,.0f} passes/s in the first {seconds:.0f} s")

    def _expected(self) -> tuple[int, int]:
        """Passes an image, in the mean: of finished images, with three standard errors of their mean and within what is
        possible; before there are enough of them, what is possible."""
        low, high = self._between
        if low == high or len(self._finished) < ENOUGH:
            return low, high
        found = capacity(np.array(self._finished), self._images, rate=1.0, replica_cores=1, cores=1)
        return max(low, round(found.mean - 3 * found.error)), min(high, round(found.mean + 3 * found.error))


def _spread(low: float, high: float) -> str:
    """`about 8 to 16 min`, from hours."""
    for unit, size, least in (("h", 1.0, 1.5), ("min", 1 / 60, 1.5), ("s", 1 / 3600, 0.0)):
        if high / size >= least:
            digits = 1 if unit == "h" else 0
            ends = [f"{end / size:.{digits}f}" for end in (low, high)]
            text = " to ".join(dict.fromkeys(ends))
            return f"about {text} {unit}" if float(ends[0]) else f"up to {ends[1]} {unit}"
    return "no time"
