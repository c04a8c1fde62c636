"""The arithmetic of forecasts, with a clock that a test moves."""

from __future__ import annotations

import pytest

from dualsmooth.training.stages.forecast import MARGIN, TRAINING, VOTES, Forecast, Pace, Part, span_of, span_text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_pace_counts_steps_and_votes_epoch_by_epoch() -> None:
    """100 images in batches of 30 are 3 steps. Two cheap epochs, two dear ones, and votes before the third."""
    pace = Pace(((1, 2), (1, 2), (10, 20), (10, 20)), (0, 0, 0.5, 0))
    assert pace.seconds(100, 30) == (3 * 22 + 50, pytest.approx((3 * 44 + 50) * MARGIN))
    assert pace.seconds(100, 30, first=2) == (3 * 20 + 50, pytest.approx((3 * 40 + 50) * MARGIN))
    assert pace.seconds(100, 30, first=3) == (3 * 10, pytest.approx(3 * 20 * MARGIN))
    assert pace.seconds(8, 30, first=3)[0] == 10  # a batch is never larger than what there is


def test_a_span_lies_between_the_faster_and_the_slower_half() -> None:
    assert span_of([4, 1, 3, 2]) == (1.5, 3.5)
    assert span_of([5]) == (5, 5)
    assert span_of([1, 9, 2]) == (1.5, 5.5)


def made(clock: Clock) -> tuple[Forecast, list[str]]:
    parts = [Part("a", TRAINING, 60, 80), Part("b", TRAINING, 30, 40), Part("votes", VOTES, 5, 50)]
    said: list[str] = []
    return Forecast(parts, said.append, clock), said


def test_all_parts_and_their_sum_are_said() -> None:
    forecast, _ = made(Clock())
    assert forecast.lines()[1:] == [
        "  a: 1:00 to 1:20",
        "  b: 0:30 to 0:40",
        "  votes: 0:05 to 0:50",
        "  in total: 1:35 to 2:50",
    ]
    assert span_text((0.2, 0.2)) == "0:00 to 0:01"


@pytest.mark.parametrize(
    ("taken", "left"),
    [(70, (35, 90)), (60, (35, 90)), (80, (35, 90)), (160, (65, 130)), (30, (20, 70))],
)
def test_what_lies_outside_its_range_moves_its_kind_by_as_much(taken: float, left: tuple[float, float]) -> None:
    clock = Clock()
    forecast, said = made(clock)
    with forecast.part("a"):
        clock.now += taken
    assert forecast.total == left
    assert said == [f"a took {span_text((taken, taken)).split()[0]} (forecast 1:00 to 1:20); left: {span_text(left)}"]


def test_the_last_part_says_what_all_took() -> None:
    clock = Clock()
    forecast, said = made(clock)
    for name, seconds in (("a", 70), ("b", 30), ("votes", 20)):
        with forecast.part(name):
            clock.now += seconds
    assert said[-1] == "votes took 0:20 (forecast 0:05 to 0:50); in total 2:00 (first forecast 1:35 to 2:50)"


def test_what_was_not_forecast_or_failed_says_nothing() -> None:
    forecast, said = made(Clock())
    with forecast.part("something"):
        pass
    with pytest.raises(KeyError), forecast.part("a"):
        raise KeyError
    assert not said
    assert forecast.total == (95, 170)
