"""What an evaluation says while it runs: counts, time left and certified accuracy, on a terminal and elsewhere."""

import io

import pytest

from dualsmooth.runtime.evaluation.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_time_left_and_accuracy_follow_from_what_was_done(stream) -> None:
    clock = Clock()
    progress = Progress(10, [0.7, -1.0], at=(0.0, 0.5), stream=stream, clock=clock)
    assert "starting" in progress.line(0.0)
    for radius in (0.2, 0.0, 0.9, 0.5):
        clock.now += 20.0
        progress.advance(radius)
    line = stream.getvalue().splitlines()[-1].split("\r")[-1]
    # 4 of 8 in 80 s: as long again; 0.7, 0.2, 0.9, 0.5 of 6 are certified at all, 3 at 0.5
    assert "6/10 images, 0.05/s, 1:20 left, certified 66.7 % at 0, 50.0 % at 0.5" in line
    for _ in range(4):
        clock.now += 20.0
        progress.advance(-1.0)
    assert "10/10 images, 0.05/s, took 2:40" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_only_a_terminal_is_drawn_over() -> None:
    plain, live, clock = io.StringIO(), Terminal(), Clock()
    for stream in (plain, live):
        progress = Progress(100, stream=stream, clock=clock)
        for _ in range(100):
            clock.now += 1.0
            progress.advance(1.0)
    assert "\r" not in plain.getvalue()
    assert len(plain.getvalue().splitlines()) <= 8
    assert live.getvalue().count("\r") == 100
    assert live.getvalue().count("\n") == 1
    assert "[########################]" in live.getvalue()
