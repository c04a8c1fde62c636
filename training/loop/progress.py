"""Progress on one line: a bar on a terminal (with rich, where it is installed), a line every few seconds elsewhere."""

from __future__ import annotations

import atexit
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TextIO

from dualsmooth.runtime.evaluation.progress import clock_text


class Progress:
    """Counts `total` steps of a stage and tells how far it is, the rate and the time left."""

    def __init__(self, stage: str, total: int, unit: str, *, done: int = 0, stream: TextIO | None = None) -> None:
        self._stage, self._total, self._unit, self._done = stage, total, unit, done
        self._stream = stream if stream is not None else sys.stderr
        self._start_count, self._start = done, time.monotonic()
        self._live = self._stream.isatty()
        self._shown = self._start
        self._bar: Any = _rich_bar(self._stream) if self._live and done < total else None
        if self._bar is not None:
            self._task = self._bar.add_task(stage, total=total, completed=done, note="", rate="")

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more steps, and show them if the last line is old enough."""
        self._done += count
        now = time.monotonic()
        last = self._done >= self._total
        if not last and now - self._shown < (0.2 if self._live else 15.0):
            return
        self._shown = now
        elapsed = max(0.0, now - self._start)
        rate = (self._done - self._start_count) / max(elapsed, 1e-9)
        if self._bar is not None and not last:
            self._bar.start()  # what is interrupted before its first step leaves the terminal alone
            rate_text = f"{rate:,.0f} {self._unit}/s"
            self._bar.update(self._task, completed=self._done, note=note, rate=rate_text, refresh=True)
            return
        if self._bar is not None:
            self._bar.stop()
        left = (self._total - self._done) / max(rate, 1e-9)
        text = f"{self._stage}: {self._done:,}/{self._total:,} {self._unit} ({self._done / max(self._total, 1):.0%})"
        text += f", {rate:,.0f}/s, " + (f"took {clock_text(elapsed)}" if last else f"{clock_text(left)} left")
        self.say(text + (f", {note}" if note else ""), keep=last)

    def say(self, text: str, *, keep: bool = True) -> None:
        """Show one line; on a terminal a line that is not kept is drawn over by the next."""
        line = f"\r\x1b[K{text}" + ("\n" if keep else "") if self._live else f"{text}\n"
        with suppress(OSError):  # work goes on where nobody can be told
            self._stream.write(line)
            self._stream.flush()


def _rich_bar(stream: TextIO) -> Any:
    """A bar with the time left that vanishes when it is done, or None without rich."""
    if find_spec("rich") is None:
        return None
    rich: Any = import_module("rich.progress")
    console = import_module("rich.console").Console(file=stream)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    bar = rich.Progress(
        *columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    atexit.register(bar.stop)  # an interrupted run gets its cursor back
    return bar
