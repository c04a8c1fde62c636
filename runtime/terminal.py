"""What a terminal gets: tables and bars that rich draws, where it is installed; pipes, files and dumb ones get text.

`NO_COLOR` leaves colours out, `TERM=dumb` all drawing. Nothing here is imported before something is shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can draw over a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], plain: str, stream: TextIO) -> None:
    """A table of texts, the first column to the left, the others to the right; `plain` where it cannot be drawn."""
    console = _console(stream)
    if console is None:
        print(plain, file=stream)
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(_text(name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_text, row))
    console.print(table)


def bar_line(stream: TextIO, share: float, text: str, width: int) -> str:
    """A line with a bar of `width` cells that is full to `share`, cut to the width of the terminal."""
    console = _console(stream)
    if console is None:
        filled = int(width * share)
        return f"[{'#' * filled}{'.' * (width - filled)}] {text}"
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 1))
    line.add_column(width=width)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_row(ProgressBar(total=1.0, completed=share, width=width), _text(text))
    with console.capture() as drawn:
        console.print(line, end="")
    return str(drawn.get()).rstrip("\n")


def _text(words: str) -> Any:
    """Text is text, whatever brackets it holds."""
    from rich.text import Text

    return Text(words)


def _console(stream: TextIO) -> Any:
    """What draws on a stream; None where it takes text alone, or rich is not installed."""
    if not is_live(stream):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, force_terminal=True, highlight=False, emoji=False)
