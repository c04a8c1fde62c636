"""Evaluations on Ray: the same rows as local ones, whoever dies on the way; what a worker refuses reaches the caller.

One cluster on this machine serves all tests; it holds two workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation import ray_workers as ray_engine
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.ray_workers import RayWorkers
from dualsmooth.runtime.evaluation.results import header_of

pytestmark = [
    pytest.mark.slow,
    # Ray's own: processes and sockets that it leaves to the interpreter, and notes about coming versions
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
COUNT = 120
OPTIONS = {"budget": ds.Fixed(20_000), "seed": 3, "indices": range(COUNT)}


def rows(path: Path) -> list[dict[str, object]]:
    """All rows but for their seconds, by index: Ray finishes blocks in any order."""
    found = [json.loads(line) for line in path.read_text().splitlines() if header_of(line) is None]
    return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in found), key=lambda row: row["index"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dualsmooth[ray]'")
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
    }
    import ray

    for patience in range(4):  # a node gives up on itself after 30 s, which a busy machine may need
        try:
            context = ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100_000_000,
                log_to_driver=False,
            )
            break
        except Exception:
            ray.shutdown()
            if patience == 3:
                raise
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A bundle, a data set, and the results of an uninterrupted local run."""
    folder = tmp_path_factory.mktemp("ray")
    bundle = toys.write_bundle(
        folder / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 2), np.uint8)
    np.savez(folder / "d.npz", x=x, y=(x[:, 0, 0] > 90).astype(np.int64))
    evaluate(ds.load(bundle, threads=1), load_dataset(f"npz:{folder}/d.npz"), folder / "whole.jsonl", **OPTIONS)
    return bundle, folder / "d.npz", folder / "whole.jsonl"


def busy_workers() -> list[int]:
    """Process ids of the Ray workers of this machine that hold one of our engines."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if b"ray::_Worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_two_workers_give_the_rows_of_a_local_run(cluster, setting, tmp_path) -> None:
    bundle, data, whole = setting
    with RayWorkers(bundle, workers=2) as workers:
        evaluate(workers, load_dataset(f"npz:{data}"), tmp_path / "o.jsonl", **OPTIONS)
    assert rows(tmp_path / "o.jsonl") == rows(whole)


def test_dead_workers_cost_no_row(cluster, setting, tmp_path, monkeypatch) -> None:
    """kill -9 of a worker at 16 random moments of one evaluation."""
    monkeypatch.setattr(ray_engine, "DEATHS", 17)  # chance may hit one block again and again
    bundle, data, whole = setting
    out, rng, killed, stop = tmp_path / "o.jsonl", np.random.default_rng(1), [], threading.Event()
    moments = np.sort(rng.uniform(0, 0.9 * whole.stat().st_size, 16))

    def kill() -> None:
        for moment in moments:
            while not stop.is_set() and not (out.exists() and out.stat().st_size >= moment):
                stop.wait(0.002)
            while not stop.is_set() and not (alive := [pid for pid in busy_workers() if pid not in killed]):
                stop.wait(0.02)
            if not stop.is_set():
                killed.append(int(rng.choice(alive)))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with RayWorkers(bundle, workers=2, block=2) as workers:
        killer.start()
        try:
            evaluate(workers, load_dataset(f"npz:{data}"), out, **OPTIONS)
        finally:
            stop.set()
            killer.join()
    assert len(killed) >= 12
    assert rows(out) == rows(whole)


def test_a_dead_driver_costs_no_row(cluster, setting, tmp_path) -> None:
    bundle, data, whole = setting
    options = ["--dataset", f"npz:{data}", "--budget", "fixed:20000", "--seed", "3", "--engine", "ray", "--block", "2"]
    options += ["--workers", "2", "--ray-address", cluster, "--out", str(tmp_path / "o.jsonl")]
    command = [sys.executable, "-m", "dualsmooth", "evaluate", str(bundle), *options]
    out, rng = tmp_path / "o.jsonl", np.random.default_rng(2)
    for _ in range(4):
        size = out.stat().st_size if out.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not out.exists() or out.stat().st_size <= size):
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.05)))  # somewhere within the next blocks
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < len(rows(out)) < COUNT
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "images are there already" in done.stderr
    assert rows(out) == rows(whole)


def test_a_block_that_kills_its_workers_ends_the_run(cluster, setting, tmp_path, monkeypatch) -> None:
    """No endless restarts: the third death on the same block is an error that names it."""
    bundle, data, _ = setting
    monkeypatch.setattr("dualsmooth.runtime.evaluation.ray_workers._Worker", _Dies)
    with RayWorkers(bundle, workers=1) as workers, pytest.raises(ds.EngineError, match="died on images 0 to 7"):
        evaluate(workers, load_dataset(f"npz:{data}"), tmp_path / "o.jsonl", **OPTIONS)


class _Dies:
    def __init__(self, *_: object) -> None:
        pass

    def certify(self, *_: object) -> None:
        os._exit(1)


_Dies.__module__ = "__main__"  # sent by value: the workers cannot import this file


def test_what_a_worker_refuses_reaches_the_caller(cluster, setting, tmp_path) -> None:
    bundle, data, _ = setting
    with RayWorkers(bundle, "npu", workers=1) as workers, pytest.raises(ds.InputError, match="'npu' is unknown"):
        evaluate(workers, load_dataset(f"npz:{data}"), tmp_path / "o.jsonl", **OPTIONS)
    (line,) = (tmp_path / "o.jsonl").read_text().splitlines()
    assert header_of(line) is not None


def test_what_the_cluster_lacks_is_said(cluster, setting) -> None:
    for demand in ({"workers": 3}, {"gpus": 1.0}, {"cpus": 4}):
        with pytest.raises(ds.InputError, match="has room for"):
            RayWorkers(setting[0], **demand)
    with pytest.raises(ds.InputError, match="expected positive"):
        RayWorkers(setting[0], block=0)
