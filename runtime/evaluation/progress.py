"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TextIO

from dualsmooth.runtime.terminal import bar_line, is_live

BAR = 24
FEW = 5
"""Steps that say too little of how long the others take."""
SHOWN_AT = (0.0, 0.5, 1.0)
"""Radii of the running certified accuracy, unless the budget names its own."""


class Progress:
    """Counts `total` steps of a `stage` and says how far it is, the rate, and the time left or taken.

    `done` steps were there before: they do not count for the rate.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage, self._total, self._unit, self._clock = stage, total, unit, clock
        self._stream = stream if stream is not None else sys.stderr
        self._live = is_live(self._stream)
        self._done = self._before = done
        self._start = self._shown = clock()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more steps; show them, and the `note`, if the last line is old enough."""
        self._done += count
        now = self._clock()
        last = self._done >= self._total
        if not last and now - self._shown < (0.1 if self._live else 15.0):
            return
        self._shown = now
        text = self.line(max(0.0, now - self._start), note)
        self._write(f"\r\x1b[K{text}" + ("\n" if last else "") if self._live else f"{text}\n")

    def say(self, text: str) -> None:
        """A line of its own, in place of a bar that is drawn again below it."""
        self._write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # work goes on where nobody can be told
            self._stream.write(text)
            self._stream.flush()

    def line(self, elapsed: float, note: str = "") -> str:
        """What is shown after `elapsed` seconds."""
        fresh, left = self._done - self._before, self._total - self._done
        rate = fresh / max(elapsed, 1e-9)
        if left <= 0:
            when = f"took {clock_text(elapsed)}"
        else:
            when = f"{clock_text(left / rate)} left" if fresh >= min(FEW, left) else "starting"
        share = self._done / max(self._total, 1)
        text = f"{self._stage}: " if self._stage else ""
        text += f"{self._done:,}/{self._total:,} {self._unit} ({share:.0%}), "
        text += (f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}") + f"/s, {when}"
        text += f", {note}" if note else ""
        return bar_line(self._stream, share, text, BAR) if self._live else text


class RunningAccuracy:
    """The share of the images so far that are correct with a certified radius of at least r (and above 0), for each r
    of `at`. Radii are -1 where the label is wrong or there is none."""

    def __init__(self, radii: Iterable[float] = (), at: Sequence[float] = SHOWN_AT) -> None:
        self._at, self._certified, self._count = tuple(at), [0] * len(at), 0
        for radius in radii:
            self.add(radius)

    def add(self, radius: float) -> None:
        self._count += 1
        for i, r in enumerate(self._at):
            self._certified[i] += radius >= r and radius > 0

    def __str__(self) -> str:
        shares = zip(self._certified, self._at, strict=True)
        return "certified " + ", ".join(f"{100 * c / max(self._count, 1):.1f} % at {r:g}" for c, r in shares)


def clock_text(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
