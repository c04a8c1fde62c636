"""A minute of eight clients: nothing lost or mixed up, memory flat. scripts/triton_load.py measures the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import toys
import triton_load
from triton_server import TritonServer

import dualsmooth as ds

pytestmark = pytest.mark.slow


def test_eight_clients_for_a_minute(server: TritonServer, local: ds.Smoother, repository: Path) -> None:
    images = [toys.image(0.3 + 0.02 * i, 0.4 + 0.02 * i) for i in range(24)]
    budget = ds.Adaptive(2000, n0=50)
    answers = triton_load.expected(images, local, budget)
    assert len(set(answers)) == len(images)
    (process,) = server.stubs("dual_smoothing")
    url = f"grpc://127.0.0.1:{server.grpc}"
    triton_load.load(url, images, answers, budget, clients=8, seconds=3)  # arenas and caches fill
    tested = triton_load.load(url, images, answers, budget, clients=8, seconds=60, process=process)
    assert tested.errors == []
    assert tested.wrong == 0
    assert tested.answers > 50
    third = len(tested.memory) // 3
    assert max(tested.memory[-third:]) < max(tested.memory[:third]) + 20e6
