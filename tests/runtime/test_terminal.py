"""Drawn on a real terminal, text everywhere else."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import numpy as np
import pytest

from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.terminal import bar_line, is_live, print_table

HEAD, ROWS = ["rule", "0", "0.5"], [["interval", "81.0", "[bold]70.0"], ["single:1", "79.2", "70.8"]]


def on_a_terminal(draw: Callable[[TextIO], None]) -> str:
    """What a pseudo-terminal of 60 columns shows."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(slave, "w") as stream:
        draw(stream)
    seen = b""
    with suppress(OSError):  # Linux says so where all is read
        while part := os.read(master, 4096):
            seen += part
    os.close(master)
    return seen.decode()


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def table(stream: TextIO) -> None:
    print_table(HEAD, ROWS, "plain | table", stream)


def test_a_terminal_gets_a_drawn_table_whose_text_is_text() -> None:
    pytest.importorskip("rich")
    shown = on_a_terminal(table)
    assert "plain" not in shown
    assert "[bold]70.0" in shown
    assert "\x1b[1m" in shown
    assert "─" in shown


@pytest.mark.parametrize("case", ["pipe", "dumb", "no rich"])
def test_others_get_the_plain_text(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a pipe stays a pipe
    if case == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if case == "no rich":
        monkeypatch.setitem(sys.modules, "rich.console", None)
    if case == "pipe":
        stream = io.StringIO()
        table(stream)
        assert stream.getvalue() == "plain | table\n"
        return
    assert on_a_terminal(table) == "plain | table\r\n"
    assert on_a_terminal(lambda stream: stream.write(str(is_live(stream)))) == str(case != "dumb")


def test_no_color_draws_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")

    def bar(stream: TextIO) -> None:
        stream.write(bar_line(stream, 0.5, "half", 20))

    colour = re.compile(r"\x1b\[[39]\d")  # of a terminal's sixteen, or of 256
    assert colour.search(on_a_terminal(bar))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(on_a_terminal(bar))
    assert "━" in on_a_terminal(bar)


def test_progress_stays_on_one_line_however_narrow_the_terminal_is() -> None:
    pytest.importorskip("rich")
    steps = iter(range(10))

    def work(stream: TextIO) -> None:
        progress = Progress("", 3, "images", stream=stream, clock=lambda: float(next(steps)))
        for _ in range(3):
            progress.advance(1, "certified 100.0 % at 0, 100.0 % at 0.5, 100.0 % at 1")

    shown = on_a_terminal(work)
    assert shown.count("\n") == 1
    assert shown.count("\r\x1b[K") == 3
    assert "…" in shown


def test_the_accuracy_of_a_pipe_is_the_markdown_of_before() -> None:
    code = (
        "import numpy as np\nfrom dualsmooth.runtime.report import print_accuracy\n"
        "print_accuracy({'a': np.array([0.5, -1.0])}, [0.0, 0.25])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == markdown_table({"a": np.array([0.5, -1.0])}, [0.0, 0.25]) + "\n"


def test_nothing_is_imported_before_something_is_shown() -> None:
    code = (
        "import sys, dualsmooth, dualsmooth.runtime.terminal\nfrom dualsmooth.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'rich', 'argcomplete', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
