"""Progress of an evaluation on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

BAR = 24
SHOWN_AT = (0.0, 0.5, 1.0)
"""Radii of the running certified accuracy, unless the budget names its own."""


class Progress:
    """Counts images and says how far the evaluation is, the time left, and the certified accuracy so far.

    `radii` are the radii of images that were there before (-1 where wrong or abstained); they count for the accuracy
    but not for the speed. Certified accuracy is the share of images, resumed ones included, that are correct with a
    certified radius of at least r (and above 0).
    """

    def __init__(
        self,
        total: int,
        radii: Sequence[float] = (),
        *,
        at: Sequence[float] = SHOWN_AT,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._at, self._clock = total, tuple(at), clock
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._certified = [sum(x >= r and x > 0 for x in radii) for r in self._at]
        self._done = self._resumed = len(radii)
        self._start = self._shown = clock()

    def advance(self, radius: float) -> None:
        """Count one image of this certified radius (-1 where wrong or abstained); show it if the line is old enough."""
        self._done += 1
        for i, r in enumerate(self._at):
            self._certified[i] += radius >= r and radius > 0
        now = self._clock()
        last = self._done >= self._total
        if not last and now - self._shown < (0.1 if self._live else 15.0):
            return
        self._shown = now
        text = self.line(max(0.0, now - self._start))
        with suppress(OSError):  # work goes on where nobody can be told
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if last else "") if self._live else f"{text}\n")
            self._stream.flush()

    def line(self, elapsed: float) -> str:
        """What is shown after `elapsed` seconds of this run."""
        fresh = self._done - self._resumed
        rate = fresh / max(elapsed, 1e-9)
        left = self._total - self._done
        when = (
            f"took {clock_text(elapsed)}" if left <= 0 else f"{clock_text(left / rate)} left" if fresh else "starting"
        )
        shares = ", ".join(
            f"{100 * c / max(self._done, 1):.1f} % at {r:g}" for c, r in zip(self._certified, self._at, strict=True)
        )
        filled = BAR * self._done // max(self._total, 1)
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}] " if self._live else ""
        return f"{bar}{self._done:,}/{self._total:,} images, {rate:.3g}/s, {when}, certified {shares}"


def clock_text(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
