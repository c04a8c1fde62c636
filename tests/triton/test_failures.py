"""A server that breaks: clients get an error and never a wrong certificate; it can be seen, and repaired."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toys
from triton_server import BUILD, TritonError, TritonServer, free_ports

import dualsmooth as ds
from dualsmooth.runtime.serving.repository import fill_repository

pytestmark = pytest.mark.slow
IMAGE = toys.image(0.7, 0.3)


def alone(toy_bundle: Path, out: Path) -> Path:
    """A repository with `dual_smoothing` only, which starts fast."""
    fill_repository(toy_bundle, out, threads=1, allow_seed=True)
    for other in [p for p in out.iterdir() if p.name != "dual_smoothing"]:
        shutil.rmtree(other)
    return out


@pytest.fixture(scope="module")
def breakable(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of its own, whose stub may be killed."""
    work = tmp_path_factory.mktemp("fragile")
    with TritonServer([alone(toy_bundle, work / "r")], work / "log", ports=free_ports(3)) as running:
        yield running


@pytest.fixture
def fragile(breakable: TritonServer) -> TritonServer:
    """The same, started again where the test before has taken it along (see `repair`)."""
    if breakable.process is None or breakable.process.poll() is not None:
        breakable.stop()
        breakable.start()
    return breakable


def address(server: TritonServer, wire: str) -> str:
    return f"{wire}://127.0.0.1:{server.grpc if wire == 'grpc' else server.http}"


def kill(server: TritonServer) -> None:
    (process,) = server.stubs("dual_smoothing")
    os.kill(process, signal.SIGKILL)


def repair(server: TritonServer) -> bool:
    """Load the model again; restart the server where the stub took it along (Triton 24.10 does not survive a stub that
    dies while it holds one of their common locks). Returns whether the server itself survived."""
    import tritonclient.grpc as grpc

    try:
        with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
            client.unload_model("dual_smoothing", client_timeout=20)
            client.load_model("dual_smoothing", client_timeout=60)
    except grpc.InferenceServerException:
        server.stop()
        server.start()
        return False
    return True


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_killed_in_the_middle(fragile: TritonServer, local: ds.Smoother, wire: str) -> None:
    budget = ds.Fixed(60, n0=20)
    expected = local.certify(IMAGE, budget=budget, seed=1).to_json()
    with ds.connect(address(fragile, wire), timeout=60) as remote:
        assert remote.certify(IMAGE, budget=budget, seed=1).to_json() == expected
        pendings = [remote.wire.send(IMAGE, {"budget": "fixed:600000", "seed": s}) for s in range(4)]
        kill(fragile)
        for pending in pendings:
            with pytest.raises(ds.ServerError):
                pending.result()
        with pytest.raises(ds.ServerError):
            remote.check_health()
        with pytest.raises(ds.ServerError):
            remote.certify(IMAGE, budget=budget)
        repair(fragile)
        remote.check_health()
        assert remote.certify(IMAGE, budget=budget, seed=1).to_json() == expected


def test_readiness_does_not_show_a_dead_process(fragile: TritonServer) -> None:
    """Killed while it is idle: Triton stays ready, an inference shows the truth."""
    with ds.connect(address(fragile, "grpc"), retries=0) as remote:
        remote.check_health()
        kill(fragile)
        ready = fragile.ready()
        with pytest.raises(ds.ServerError) as seen:
            remote.check_health()
        if repair(fragile):
            assert ready
            assert "not healthy" in str(seen.value)
        remote.check_health()


def test_a_restart_in_between_is_noticed(fragile: TritonServer) -> None:
    """Killed and loaded again before anyone looks: what was asked of the old process is lost, and is said to be."""
    with ds.connect(address(fragile, "grpc"), timeout=60) as remote:
        pending = remote.wire.send(IMAGE, {"budget": "fixed:600000"})
        kill(fragile)
        survived = repair(fragile)
        with pytest.raises(ds.ServerError, match="restarted|not healthy" if survived else ""):
            pending.result()


def test_a_server_that_went_away(fragile: TritonServer) -> None:
    """And comes back on the same ports: a client that outlived it goes on."""
    with ds.connect(address(fragile, "grpc"), retries=0) as remote:
        first = remote.certify(IMAGE, budget=ds.Fixed(50), seed=1)
        fragile.stop()
        with pytest.raises(ds.ServerError, match="cannot be reached"):
            remote.check_health()
        fragile.start()
        remote.wire.retries = 5
        assert remote.certify(IMAGE, budget=ds.Fixed(50), seed=1).to_json() == first.to_json()


def refused(repository: Path, tmp_path: Path, **options: Path) -> str:
    with pytest.raises(TritonError) as caught:
        TritonServer([repository], tmp_path / "log", **options).start()
    assert "did not start" in str(caught.value)
    return (tmp_path / "log").read_text(errors="replace")


def test_numpy_2_in_the_stub_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    """The 24.10 stub would read every image as zeros, without an error."""
    assert int(np.__version__.split(".")[0]) >= 2
    log = refused(alone(toy_bundle, tmp_path / "r"), tmp_path, venv=Path(sys.prefix))
    assert "tensors" in log


def test_an_altered_network_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    repository = alone(toy_bundle, tmp_path / "r")
    network = repository / "dual_smoothing" / "1" / "bundle" / "estimator.onnx"
    network.write_bytes(network.read_bytes() + b"\0")
    assert "was altered or damaged" in refused(repository, tmp_path)


def test_nothing_is_left_behind(toy_bundle: Path, tmp_path: Path) -> None:
    with TritonServer([alone(toy_bundle, tmp_path / "r")], tmp_path / "log") as running:
        stubs, prefix = running.stubs(), running.prefix
        assert len(stubs) == 1
    assert not Path(f"/proc/{stubs[0]}").exists()
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert (BUILD / "triton" / "ready").exists()


def test_nothing_is_left_behind_even_after_kill_9(toy_bundle: Path, tmp_path: Path) -> None:
    """Whoever started the server is killed: the server goes too."""
    repository = alone(toy_bundle, tmp_path / "r")
    code = (
        "import sys, time; from pathlib import Path; from triton_server import TritonServer\n"
        f"s = TritonServer([Path({str(repository)!r})], Path({str(tmp_path / 'log')!r})).start()\n"
        "print(s.process.pid, *s.stubs(), flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BUILD.parent / "scripts"), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as starter:
        assert starter.stdout is not None
        processes = [int(word) for word in starter.stdout.readline().split()]
        starter.kill()
    assert len(processes) == 2
    end = time.monotonic() + 60
    while any(Path(f"/proc/{p}").exists() and "Z" not in state(p) for p in processes):
        assert time.monotonic() < end
        time.sleep(0.1)


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
