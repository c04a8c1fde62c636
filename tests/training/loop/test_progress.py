from __future__ import annotations

import io

import pytest

from dualsmooth.training.loop import progress
from dualsmooth.training.loop.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A second passes whenever one looks."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "time", Clock())


def test_plain_lines_come_seldom_and_end_with_the_time_it_took() -> None:
    stream = io.StringIO()
    bar = Progress("labels", 40, "passes", stream=stream)
    for _ in range(40):
        bar.advance(1, "fine")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "labels: 15/40 passes (38%), 1/s, 0:25 left, fine"
    assert lines[-1] == "labels: 40/40 passes (100%), 1/s, took 0:40, fine"
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_shows_one_line_and_keeps_the_last(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setattr(progress, "find_spec", lambda name: None)
    stream = Terminal()
    bar = Progress("classifier", 4, "images", stream=stream)
    for number in range(4):
        bar.advance(1, f"loss {number}")
    text = stream.getvalue()
    assert "classifier" in text
    assert "loss 1" in text
    assert "\x1b[" in text
    assert text.endswith("classifier: 4/4 images (100%), 1/s, took 0:04, loss 3\n")
    assert text.count("took") == 1


def test_what_is_finished_already_shows_nothing() -> None:
    stream = Terminal()
    Progress("classifier", 4, "images", done=4, stream=stream)
    assert stream.getvalue() == ""
