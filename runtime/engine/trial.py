"""Whether ONNX Runtime survives a graph: tried in a child process, since a crash of it ends its process.

A graph that nobody has opened here before is opened and run by `trial_child.py`. Where ONNX Runtime dies of one of its
graph optimisations, or fails in it, lower levels are tried. What was found is kept for this user, file, version,
provider and processor, and the files that come with this package are known: only strangers' files cost a child, once.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualsmooth.runtime.engine.instruction_set import flags
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import BundleError
from dualsmooth.runtime.files import cache_folder

LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
"""Graph optimisation, from most to least: our names and ONNX Runtime's."""
KNOWN = Path(__file__).resolve().parents[1] / "data"
MOST_REMEMBERED = 1 << 20
_CHILD = Path(__file__).with_name("trial_child.py")


def safe_level(
    path: Path,
    digest: str,
    shape: Sequence[int],
    *,
    rows: Sequence[int] = (1, 3),
    name: str = "",
    level: str = "all",
    provider: Provider | None = None,
    options: Mapping[str, str] | None = None,
) -> str:
    """The first level of graph optimisation, from `level` on, at which ONNX Runtime opens and runs the file at `path`.

    `digest` stands for its contents, `shape` [C,H,W] for sizes that it leaves open, `rows` are the batches, `name` is
    for messages; `provider` (`Cpu()` by default) runs it, with `options` of its session. Where it fails in an orderly
    way at every level, that is `level`: who opens it then gets its own words. Where no Python can be started
    (a program that embeds one), nothing is tried. Raises `BundleError` where ONNX Runtime crashes, is killed or never
    ends.
    """
    import onnxruntime

    if path.resolve().is_relative_to(KNOWN):
        return level
    on = provider or Cpu()
    job: dict[str, Any] = {"ours": on.name if on.brings_libraries else "", "provider": on.onnxruntime_name}
    job |= {"options": dict(options or {}), "entries": on.entries(), "shape": list(shape), "rows": list(rows)}
    facts = [digest, level, job, onnxruntime.__version__, platform.machine(), sorted(flags())]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if found := _remembered(key):
        return found
    death = ""
    try:
        for lower in list(LEVELS)[list(LEVELS).index(level) :]:
            try:
                said = _child.ask({**job, "path": str(path.absolute()), "level": LEVELS[lower]}, on.seconds)
            except _Died as error:
                death = death or str(error)
                continue
            if said is None:
                _remember(key, lower)
                return lower
    except _NoChild:
        return level
    finally:
        if on.brings_libraries:
            _child.close()  # it would hold the device
    if death:
        raise BundleError(
            f"{name or path}: ONNX Runtime {onnxruntime.__version__} {death} on this graph (provider {on.name}), at "
            "every level of graph optimisation; export it in another precision, or update onnxruntime"
        )
    return level


def _memory() -> Path:
    return cache_folder() / "opened.txt"


def _remembered(key: str) -> str:
    with suppress(OSError, RuntimeError, UnicodeDecodeError):  # no home, or one that cannot be read
        for line in _memory().read_text("ascii").splitlines():
            if line.startswith(key) and line[len(key) + 1 :] in LEVELS:
                return line[len(key) + 1 :]
    return ""


def _remember(key: str, level: str) -> None:
    with suppress(OSError, RuntimeError):
        file = _memory()
        file.parent.mkdir(parents=True, exist_ok=True)
        large = file.exists() and file.stat().st_size > MOST_REMEMBERED
        with open(file, "w" if large else "a", encoding="ascii") as lines:
            lines.write(f"{key} {level}\n")


class _Died(Exception):
    """The child ended before it had answered; the text says how."""


class _NoChild(Exception):
    """No child can be started here."""


class _Child:
    """One child process, started when it is first needed; it ends when idle, and another takes its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: Mapping[str, Any], seconds: float) -> str | None:
        """What ONNX Runtime said against the job's graph; None where it ran. Raises `_Died`, `_NoChild`."""
        with self._lock:
            for _ in range(2):
                process = self._started()
                since, timer = time.monotonic(), threading.Timer(seconds, process.kill)
                timer.daemon = True
                timer.start()
                answer = ""
                with suppress(OSError):
                    process.stdin.write(json.dumps(job) + "\n")  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
                    answer = process.stdout.readline()  # type: ignore[union-attr]
                timer.cancel()
                if answer:
                    said: str | None = json.loads(answer)
                    return said
                self._process, status = None, _ended(process)
                if time.monotonic() - since >= seconds:
                    raise _Died(f"does not come to an end within {seconds:g} s")
                if status:
                    raise _Died(_how(status))
                # it had been idle and left just now
            raise _NoChild

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()  # it was idle and left
        python = _python()
        if python is None:
            raise _NoChild
        try:
            process = subprocess.Popen(
                [python, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for this process, which then lets the child go
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        except OSError as error:
            raise _NoChild from error
        if process.stdout.readline() != "ready\n":  # type: ignore[union-attr]
            _ended(process)
            raise _NoChild
        self._process = process
        return process

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            _ended(process)


def _ended(process: subprocess.Popen[str]) -> int:
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            stream.close()  # type: ignore[union-attr]
    return process.wait()


def _how(status: int) -> str:
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return f"ends its process (status {status})"
    return f"is killed ({name}: out of memory?)" if name == "SIGKILL" else f"crashes ({name})"


def _python() -> str | None:
    """A Python interpreter like this one; `sys.executable` is none in programs that embed Python."""
    ends = Path("python.exe") if os.name == "nt" else Path("bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    for path in (Path(sys.executable or "-"), Path(sys.prefix) / ends, Path(sys.base_prefix) / ends):
        if path.name.startswith(("python", "pypy")) and os.access(path, os.X_OK) and path.is_file():
            return str(path)
    return None


_child = _Child()
atexit.register(lambda: _child.close())


def _after_fork() -> None:
    """The parent's child stays the parent's."""
    global _child
    _theirs.append(_child)
    _child = _Child()


_theirs: list[_Child] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
