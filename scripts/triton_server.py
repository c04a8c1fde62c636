"""A real Triton server without root, container or GPU: fetched from PyPI into build/, started, stopped.

python scripts/triton_server.py                     fetch, fill build/triton-repo from the shipped bundle, serve it
python scripts/triton_server.py --repository REPO   serve another repository
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import filecmp
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
WHEEL = "nvidia-pytriton==0.7.0"
"""Brings Triton 2.51 (24.10) with the Python backend: 55 MB, Linux x86-64, glibc 2.35 or later."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BACKENDS = Path(__file__).resolve().parent / "triton_backends"


class TritonError(Exception):
    """The server cannot be fetched or started."""


def fetch(build: Path = BUILD) -> tuple[Path, Path]:
    """The server's folder and the stub's virtual environment under `build`, made if missing (about a minute), by one
    process at a time.

    The stub's environment has numpy<2: under NumPy 2 the 24.10 stub reads all tensors as zeros.
    """
    build.mkdir(parents=True, exist_ok=True)
    with open(build / ".triton.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fetch(build / "triton", build / "venv-stub")


def _fetch(server: Path, venv: Path) -> tuple[Path, Path]:
    home = server / "pytriton" / "tritonserver"
    if not (server / "ready").is_file():
        print(f"fetching Triton ({WHEEL}, 55 MB) into {server}", file=sys.stderr, flush=True)
        shutil.rmtree(server, ignore_errors=True)
        _pip(sys.executable, "install", "--no-deps", "--upgrade", "--target", str(server), WHEEL)
        stub = home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        if not stub.is_file():
            raise TritonError(f"{WHEEL} has no stub for Python {PYTHON}; use Python 3.11")
        shutil.copy2(stub, home / "backends" / "python" / "triton_python_backend_stub")
        (server / "ready").touch()
    if not (venv / "ready-2").is_file():
        print(f"making the stub's environment in {venv}", file=sys.stderr, flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(venv))
        _pip(str(venv / "bin" / "python"), "install", "numpy<2", "pillow", *_engine(), "-e", str(ROOT))
        (venv / "ready-2").touch()
    for source in (path for path in BACKENDS.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        place = home / "backends" / source.relative_to(BACKENDS)
        if not (place.is_file() and filecmp.cmp(source, place, shallow=False)):  # another server may be reading it
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    return home, venv


def _engine() -> list[str]:
    """The onnxruntime of this environment, so that the server draws the same votes as a local smoother."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return [f"onnxruntime=={version('onnxruntime')}"]
    except PackageNotFoundError:
        return ["onnxruntime"]


def _pip(python: str, *arguments: str) -> None:
    _run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TritonError(f"{' '.join(command[:6])} … failed: {last}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now (Triton refuses port 0)."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


_LIBC = ctypes.CDLL(None)


def _stop_with_parent() -> None:
    """Linux: the kernel sends SIGTERM to this process when the one that started it is gone, however it went."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class TritonServer:
    """One server on loopback; use as a context manager, so that it is always stopped."""

    def __init__(
        self,
        repositories: Sequence[Path],
        log: Path,
        *,
        build: Path = BUILD,
        venv: Path | None = None,
        ports: Sequence[int] | None = None,
    ) -> None:
        """`venv` replaces the stub's environment; `ports` are those of HTTP, gRPC and metrics (free ones if None)."""
        self.home, stub = fetch(build)
        self.venv, self.repositories, self.log = venv or stub, list(repositories), log
        self.http, self.grpc, self.metrics = ports or free_ports(3)
        self.prefix = f"dualsmooth{os.getpid()}-{self.grpc}-"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        return [
            str(self.home / "bin" / "tritonserver"),
            *(f"--model-repository={path}" for path in self.repositories),
            f"--backend-directory={self.home / 'backends'}",
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            "--model-control-mode=explicit",  # so that a model whose process died can be loaded again
            "--load-model=*",
            "--exit-timeout-secs=10",
            *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
            f"--http-port={self.http}",
            f"--grpc-port={self.grpc}",
            f"--metrics-port={self.metrics}",
            f"--backend-config=python,shm-region-prefix-name={self.prefix}",
            "--backend-config=python,stub-timeout-seconds=60",
        ]

    def start(self, timeout: float = 90.0) -> TritonServer:
        """Start and wait until all models are ready. Raises `TritonError` with the end of the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # the first `python3` on PATH is the stub's Python; PYTHONPATH is ignored by it
        environment = {**os.environ, "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_stop_with_parent,  # so that it is always stopped, even after a kill -9
            )
        end = time.monotonic() + timeout
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TritonError(f"Triton did not start; the end of {self.log}:\n{self.tail()}")
            time.sleep(0.1)
        return self

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def read_metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stubs(self, model: str | None = None) -> list[int]:
        """Process ids of the Python stubs (of one model) of this server."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    mine = "triton_python_backend_stub" in command[0] and any(self.prefix in word for word in command)
                    if mine and (model is None or any(f"/{model}/" in word for word in command)):
                        found.append(int(entry.name))
        return sorted(found)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; removes the shared memory that killed stubs leave behind."""
        if self.process is None:
            return
        stubs = self.stubs()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stub in stubs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stub, signal.SIGKILL)
        for region in Path("/dev/shm").glob(f"{self.prefix}*"):
            region.unlink(missing_ok=True)
        self.process = None

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, help="serve this one (default: filled from the shipped bundle)")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--build", type=Path, default=BUILD)
    args = parser.parse_args()
    ports = (args.http_port, args.grpc_port, args.metrics_port)
    try:
        repository = args.repository or _shipped(args.build)
        server = TritonServer([repository], args.build / "triton.log", build=args.build, ports=ports).start()
    except TritonError as error:
        print(f"triton_server: {error}", file=sys.stderr)
        return 2
    image = args.build / "image.npy"
    _example(image)
    print(f"serving {repository} on 127.0.0.1: HTTP {server.http}, gRPC {server.grpc}, metrics {server.metrics}")
    own = Path(sys.executable).with_name("dualsmooth")
    command = _shown(own) if own.exists() else own.name
    print(f"try: {command} certify grpc://127.0.0.1:{server.grpc} {_shown(image)} --seed 0", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        assert server.process is not None
        return server.process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        print("stopping", flush=True)
        server.stop()


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _shipped(build: Path) -> Path:
    """The shipped bundle as a repository, filled again at each start."""
    from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
    from dualsmooth.runtime.serving.repository import fill_repository

    repository = build / "triton-repo"
    shutil.rmtree(repository, ignore_errors=True)
    fill_repository(SHIPPED_BUNDLE, repository, allow_seed=True)
    return repository


def _example(path: Path) -> None:
    """One of the shipped test images, as an NPY file."""
    import numpy as np

    from dualsmooth.runtime.bundle.shipped import SHIPPED_IMAGES
    from dualsmooth.runtime.datasets.formats import load_dataset

    np.save(path, load_dataset(f"npz:{SHIPPED_IMAGES}").images[2])


if __name__ == "__main__":
    sys.exit(main())
