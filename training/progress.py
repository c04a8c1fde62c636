"""Progress on one line: redrawn on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts `total` steps of a stage and tells how far it is, the rate and the time left."""

    def __init__(self, stage: str, total: int, unit: str, *, done: int = 0, stream: TextIO | None = None) -> None:
        self._stage, self._total, self._unit, self._done = stage, total, unit, done
        self._stream = stream if stream is not None else sys.stderr
        self._start_count, self._start = done, time.monotonic()
        self._live = self._stream.isatty()
        self._shown = self._start

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more steps, and show them if the last line is old enough."""
        self._done += count
        now = time.monotonic()
        last = self._done >= self._total
        if not last and now - self._shown < (0.2 if self._live else 15.0):
            return
        self._shown = now
        rate = (self._done - self._start_count) / max(now - self._start, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        text = f"{self._stage}: {self._done:,}/{self._total:,} {self._unit} ({self._done / max(self._total, 1):.0%})"
        text += f", {rate:,.0f}/s, " + (f"took {_clock(now - self._start)}" if last else f"{_clock(left)} left")
        self.say(text + (f", {note}" if note else ""), keep=last)

    def say(self, text: str, *, keep: bool = True) -> None:
        """Show one line; on a terminal a line that is not kept is drawn over by the next."""
        line = f"\r\x1b[K{text}" + ("\n" if keep else "") if self._live else f"{text}\n"
        self._stream.write(line)
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
