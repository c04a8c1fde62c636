"""What runs every fuzz target: the number of inputs, the guards around each of them, and the table of what happened.

DUALSMOOTH_FUZZ=N sets the inputs a target: 300 where it is not set (`make test`), 10,000 in `make nightly`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from dualsmooth.runtime.errors import DualSmoothError

DEFAULT = 300
INPUTS = int(os.environ.get("DUALSMOOTH_FUZZ", DEFAULT))
SECONDS = 60.0
"""One input that takes this long hangs. All of them take milliseconds: this is no statement about speed."""
MEMORY = 2 << 30
"""What one input may allocate, address space included."""
WRITES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.chown",
}
RELATIVE = {"os.remove", "os.rmdir", "os.rename"}
NEVER = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "socket.connect",
    "ctypes.dlopen",
}


class Hang(BaseException):
    """Not an Exception, so that nobody under test swallows it."""


class Refused(BaseException):
    """Leaves a check after the refusal that it was to provoke."""


@dataclass
class Row:
    """What happened to the inputs of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0


ROWS: dict[str, Row] = {}


def fuzz(
    target: str, *, share: float = 1.0, forbidden: bool = True, **strategies: SearchStrategy[Any]
) -> Callable[..., Any]:
    """Turn a check of one input into a test of many: `share` of the budget, each input inside the guards.

    A check ends normally where the input was accepted (and is what it must be), and inside of `attempt` where it was
    refused. `forbidden=False` lets it start processes and import what needs shared libraries.
    """

    def decorate(check: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(check)
        def one(**arguments: Any) -> None:
            row, start = ROWS.setdefault(target, Row()), time.perf_counter()
            row.inputs += 1
            try:
                with guarded(forbidden):
                    check(**arguments)
                row.accepted += 1
            except Refused:
                row.refused += 1
            finally:
                row.seconds += time.perf_counter() - start

        quick = INPUTS <= DEFAULT  # the same inputs in every run: `make test` fails for changes of the code only
        chosen = settings(
            max_examples=max(1, int(INPUTS * share)),
            deadline=None,
            derandomize=quick,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        return chosen(given(**strategies)(one))

    return decorate


def attempt(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The result of `call`. A public error with one clear line ends the check as refused; any other error fails it."""
    try:
        return call(*arguments, **more)
    except DualSmoothError as error:
        clear(str(error))
        raise Refused from None


def clear(message: str) -> None:
    """One printable line of a readable length."""
    assert message.strip()
    assert len(message.splitlines()) == 1, message
    assert len(message) < 1000, message[:2000]


@contextlib.contextmanager
def guarded(forbidden: bool = True) -> Iterator[None]:
    """A limit of time and one of memory, and a list of what may not be done meanwhile."""

    def late(*_: Any) -> None:
        raise Hang(f"no answer within {SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # for what hangs outside of Python
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, hard))
    _WATCH.seen, _WATCH.active, _WATCH.forbidden = [], True, forbidden
    try:
        yield
    finally:
        _WATCH.active = False
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not _WATCH.seen, f"did what it must not: {_WATCH.seen[:3]}"


def _address_space() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


TRIAL = "runtime/engine/trial_child.py"
"""The one process that may be started: it opens a graph first, so that a crash is not this process's."""


class _Watch:
    """Hears of files opened for writing outside of `inside`, of processes, connections and pickles."""

    def __init__(self) -> None:
        self.active, self.forbidden, self.seen = False, True, list[str]()
        self.inside: Path = Path("/nowhere")
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._written(event, path)
        elif event in WRITES:
            handles = [n for n in arguments if isinstance(n, int) and n >= 0]  # mode, and folders that paths are in
            folder = os.readlink(f"/proc/self/fd/{handles[-1]}") if event in RELATIVE and handles else ""
            for path in arguments[:2]:
                if isinstance(path, str | bytes):
                    self._written(event, os.path.join(folder, os.fsdecode(path)))
        elif event in NEVER and self.forbidden and TRIAL not in str(arguments):
            self.seen.append(f"{event} {str(arguments)[:200]}")

    def _written(self, event: str, path: str | bytes) -> None:
        full = os.path.realpath(os.fsdecode(path))
        if full != os.devnull and not full.startswith(f"{self.inside}{os.sep}"):
            self.seen.append(f"{event} {full}")


_WATCH = _Watch()


def confine(folder: Path) -> Path:
    """Inputs may write below `folder` only, from now on, where the cache is as well."""
    _WATCH.inside = folder.resolve()
    os.environ["XDG_CACHE_HOME"] = str(_WATCH.inside)
    return folder


def table(old: str) -> str:
    """The rows of this run in Markdown, over those of other targets in `old`, an earlier table."""
    lines = [line for line in old.splitlines() if line.startswith("| ") and "---" not in line]
    rows = {line.split("|")[1].strip(): line for line in lines[1:]}
    for name, row in ROWS.items():
        rows[name] = f"| {name} | {row.inputs:,} | {row.accepted:,} | {row.refused:,} | {row.seconds:.0f} |"
    head = "| target | inputs | accepted | refused | seconds |\n| --- | ---: | ---: | ---: | ---: |"
    return "\n".join(["# Fuzzing", "", head, *(rows[name] for name in sorted(rows)), ""])
