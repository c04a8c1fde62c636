"""What long work says while it runs: counts, time left and certified accuracy, on a terminal and elsewhere."""

import io
import sys

import pytest

from dualsmooth.runtime.evaluation.progress import Progress, RunningAccuracy


@pytest.fixture(autouse=True)
def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a terminal gets where rich is not installed; tests/runtime/test_terminal.py has the rest."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.console", None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Looks(Clock):
    """A second passes whenever one looks."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_time_left_and_accuracy_follow_from_what_was_done(stream: io.StringIO) -> None:
    clock = Clock()
    accuracy = RunningAccuracy([0.7, -1.0], at=(0.0, 0.5))
    progress = Progress("", 10, "images", done=2, stream=stream, clock=clock)
    assert "starting" in progress.line(0.0)
    for radius in (0.2, 0.0, 0.9, 0.5):
        clock.now += 20.0
        accuracy.add(radius)
        progress.advance(1, str(accuracy))
    line = stream.getvalue().splitlines()[-1].split("\r")[-1]
    # 4 of 8 in 80 s: as long again; 0.7, 0.2, 0.9, 0.5 of 6 are certified at all, 3 at 0.5
    assert "6/10 images (60%), 0.05/s, 1:20 left, certified 66.7 % at 0, 50.0 % at 0.5" in line
    for _ in range(4):
        clock.now += 20.0
        accuracy.add(-1.0)
        progress.advance(1, str(accuracy))
    assert "10/10 images (100%), 0.05/s, took 2:40, certified 40.0 % at 0, 30.0 % at 0.5" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_only_a_terminal_is_drawn_over() -> None:
    plain, live, clock = io.StringIO(), Terminal(), Clock()
    for stream in (plain, live):
        progress = Progress("", 100, "images", stream=stream, clock=clock)
        for _ in range(100):
            clock.now += 1.0
            progress.advance()
    assert "\r" not in plain.getvalue()
    assert len(plain.getvalue().splitlines()) <= 8
    assert live.getvalue().count("\r") == 100
    assert live.getvalue().count("\n") == 1
    assert "[########################]" in live.getvalue()


def test_plain_lines_come_seldom_and_end_with_the_time_it_took() -> None:
    stream = io.StringIO()
    bar = Progress("labels", 40, "passes", stream=stream, clock=Looks())
    for _ in range(40):
        bar.advance(1, "fine")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "labels: 15/40 passes (38%), 1/s, 0:25 left, fine"
    assert lines[-1] == "labels: 40/40 passes (100%), 1/s, took 0:40, fine"
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_one_line_and_keeps_the_last() -> None:
    stream = Terminal()
    bar = Progress("classifier", 4, "images", stream=stream, clock=Looks())
    for number in range(4):
        bar.advance(1, f"loss {number}")
    text = stream.getvalue()
    assert "loss 1" in text
    assert text.count("\r\x1b[K[") == 4
    assert text.endswith("] classifier: 4/4 images (100%), 1/s, took 0:04, loss 3\n")
    assert text.count("took") == text.count("\n") == 1


def test_what_is_finished_already_shows_nothing() -> None:
    stream = Terminal()
    Progress("classifier", 4, "images", done=4, stream=stream)
    assert stream.getvalue() == ""


def test_work_goes_on_where_nobody_can_be_told() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Progress("labels", 1, "images", stream=Broken()).advance()
