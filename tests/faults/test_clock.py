"""Clocks that jump a day ahead or back: times are never negative, limits hold, and no result depends on them."""

from __future__ import annotations

import io
import itertools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.field_log import read_log, write_log
from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.protocol import Stopped
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.service import Service

DAY = 86_400.0
NEGATIVE = re.compile(r"(?<![\de])-\d")
JUMPS = {"ahead": [DAY], "back": [-DAY], "to and fro": [DAY, -2 * DAY, 3 * DAY, -DAY]}


def jumping(real: Callable[[], float], jumps: list[float], every: int = 3) -> Callable[[], float]:
    """A clock that jumps at every third look."""
    steps = itertools.cycle([*[0.0] * (every - 1), *jumps])
    offset = 0.0

    def clock() -> float:
        nonlocal offset
        offset += next(steps)
        return real() + offset

    return clock


def set_clocks(patch: pytest.MonkeyPatch, jumps: list[float], *names: str) -> None:
    for name in names:
        patch.setattr(time, name, jumping(getattr(time, name), jumps))


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
def test_seconds_of_results_are_never_negative(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: list[float]
) -> None:
    dataset = load_dataset(f"npz:{source / 'd.npz'}")
    smoother = ds.load(source / "bundle", threads=1)
    options = {"indices": range(8), "seed": 3, "budget": ds.Fixed(100)}
    evaluate(smoother, dataset, tmp_path / "calm.jsonl", **options)
    with monkeypatch.context() as patch:
        set_clocks(patch, jumps, "time", "perf_counter")
        evaluate(smoother, dataset, tmp_path / "wild.jsonl", **options)
    calm, wild = (load_results(tmp_path / f"{name}.jsonl") for name in ("calm", "wild"))
    assert [r.certificate.to_json() for r in wild] == [r.certificate.to_json() for r in calm]
    assert min(r.seconds for r in wild) >= 0
    write_log(wild, tmp_path / "log.tsv")
    assert min(row.seconds for row in read_log(tmp_path / "log.tsv")) >= 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_progress_shows_no_negative_time(jumps: list[float], kind: type[io.StringIO]) -> None:
    stream = kind()
    shown = Progress("labels", 30, "images", stream=stream, clock=jumping(time.monotonic, jumps))
    for _ in range(30):
        shown.advance()
    assert "30/30 images" in stream.getvalue()
    assert not NEGATIVE.search(stream.getvalue())


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
def test_time_limits_of_a_service_hold(source: Path, monkeypatch: pytest.MonkeyPatch, jumps: list[float]) -> None:
    smoother = ds.load(source / "bundle", threads=1)
    image = load_dataset(f"npz:{source / 'd.npz'}").images[0]
    set_clocks(monkeypatch, jumps, "time", "perf_counter")
    for limit, budget, overdue in ((300.0, "fixed:2000", False), (0.05, "fixed:100000000", True)):
        service = Service(smoother, Limits(max_seconds=limit, max_passes=10**12, allow_seed=True))
        reply = Collected()
        service.submit(image, {"seed": 1, "budget": budget}, reply)
        assert reply.done.wait(60)
        assert (reply.answer is None) == overdue
        assert isinstance(reply.error, Stopped) == overdue
        service.close()


@pytest.mark.parametrize("age", [-10 * DAY, 10 * DAY], ids=["old", "from the future"])
def test_labels_that_are_there_are_not_counted_again(tmp_path: Path, age: float) -> None:
    from dualsmooth.training.stages.labels import _in_shards

    counted: list[int] = []

    def count(number: int, rows: np.ndarray) -> np.ndarray:
        counted.append(number)
        return rows[:, None] + number

    index = np.arange(10)
    first = _in_shards("labels", tmp_path, index, (1,), np.int64, count, 4, 1)
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() + age,) * 2)
    assert np.array_equal(_in_shards("labels", tmp_path, index, (1,), np.int64, count, 4, 1), first)
    assert counted == [0, 1, 2]
