"""Parts of batches side by side: all rows, in their order, no idle lane, and no vote after a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from dualsmooth.runtime.engine.lanes import LEAST, Lanes, Votes
from dualsmooth.runtime.errors import EngineError

Take = Callable[[Lanes, int, Votes], np.ndarray]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 7, 15, 16, 100, 127, 128, 256, 1000])
def test_parts_cover_all_rows_and_none_is_tiny(count: int, rows: int) -> None:
    sizes = [len(range(rows)[part]) for part in Lanes(count).parts(rows)]
    assert np.concatenate([np.arange(rows)[part] for part in Lanes(count).parts(rows)]).tolist() == list(range(rows))
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == 1 or min(sizes) >= LEAST
    assert len(sizes) < count or len(sizes) % count == 0  # else the last ones would run alone


def test_a_usual_batch_has_two_parts_for_each_lane() -> None:
    assert [len(Lanes(count).parts(256)) for count in (1, 2, 3, 8)] == [1, 4, 6, 8]


def later(lanes: Lanes, rows: int, votes: Votes) -> np.ndarray:
    return lanes.start(rows, votes).result()


both = pytest.mark.parametrize("take", [Lanes.run, later], ids=["run", "start"])


@both
@pytest.mark.parametrize("rows", [1, 40, 256])
def test_votes_are_in_the_order_of_the_rows(rows: int, take: Take) -> None:
    values = np.random.default_rng(0).integers(0, 100, rows)
    lanes = Lanes(3)
    for _ in range(20):
        assert (take(lanes, rows, lambda part: values[part]) == values).all()


def test_the_caller_runs_a_part_only_where_it_waits_anyway() -> None:
    def who(part: slice) -> np.ndarray:
        time.sleep(0.02)
        return np.full(part.stop - part.start, threading.get_ident())

    found = [set(take(Lanes(2), 32, who).tolist()) for take in (Lanes.run, later)]
    assert [len(threads) for threads in found] == [2, 2]
    assert [threading.get_ident() in threads for threads in found] == [True, False]


@both
def test_lanes_run_at_the_same_time(take: Take) -> None:
    meeting = threading.Barrier(2, timeout=10)

    def votes(part: slice) -> np.ndarray:
        meeting.wait()
        return np.full(part.stop - part.start, threading.get_ident())

    assert len(set(take(Lanes(2), 32, votes).tolist())) == 2


def test_a_lane_that_has_no_part_left_begins_the_next_batch() -> None:
    """The last part of the first batch waits for a part of the second, which is started before the first has ended."""
    lanes, begun = Lanes(2), threading.Event()

    def first(part: slice) -> np.ndarray:
        assert part.start < 192 or begun.wait(10)
        return np.zeros(part.stop - part.start, np.int64)

    def second(part: slice) -> np.ndarray:
        begun.set()
        return np.ones(part.stop - part.start, np.int64)

    batches = [lanes.start(256, first), lanes.start(256, second)]
    assert [started.result().tolist() for started in batches] == [[0] * 256, [1] * 256]


def test_a_cancelled_batch_has_no_part_running_and_begins_none() -> None:
    lanes, running, begun = Lanes(2), 0, 0

    def votes(part: slice) -> np.ndarray:
        nonlocal running, begun
        begun += 1
        running += 1
        time.sleep(0.05)
        running -= 1
        return np.zeros(part.stop - part.start, np.int64)

    started = lanes.start(256, votes)
    while not begun:
        time.sleep(0.001)
    started.cancel()
    assert running == 0
    assert begun <= 2
    time.sleep(0.1)
    assert begun <= 2
    with pytest.raises(EngineError, match="given up"):  # never votes that nobody took
        started.result()


@both
@pytest.mark.parametrize("bad", range(4))
@pytest.mark.parametrize("error", [IndexError, RuntimeError, KeyboardInterrupt])
def test_a_part_that_fails_ends_the_batch(bad: int, error: type[BaseException], take: Take) -> None:
    lanes, running = Lanes(2), 0

    def votes(part: slice) -> np.ndarray:
        nonlocal running
        running += 1
        time.sleep(0.005)
        running -= 1
        if part.start == 64 * bad:
            raise error("broken")
        return np.zeros(part.stop - part.start, np.int64)

    with pytest.raises(error, match="broken"):
        take(lanes, 256, votes)
    assert running == 0
    assert not take(lanes, 256, lambda part: np.zeros(part.stop - part.start, np.int64)).any()


@both
def test_no_part_begins_after_a_failure(take: Take) -> None:
    begun: list[int] = []

    def votes(part: slice) -> np.ndarray:
        begun.append(part.start)
        if part.start == 0:
            raise RuntimeError("broken")
        time.sleep(0.05)
        return np.zeros(part.stop - part.start, np.int64)

    with pytest.raises(RuntimeError):
        take(Lanes(2), 256, votes)
    assert len(begun) <= 2
