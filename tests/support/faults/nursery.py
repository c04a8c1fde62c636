"""Runs one command of dualsmooth once for each fault, each time in a fork of a process that has imported everything.

`python nursery.py JOB.json` reads a `Job` and prints a JSON line for each fault. Each fork works in a fresh copy of the
job's folder; what the fault left is kept in `after`, and then the command is run again in place, undisturbed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.injector import watch


@dataclass
class Outcome:
    """One fault: exit status and stderr of the struck run and of the run after it, and where their folders are."""

    kind: str
    at: int
    op: tuple[str, str]
    status: int
    stderr: str
    after: Path
    again: int
    again_stderr: str
    final: Path

    def __str__(self) -> str:
        return f"{self.kind} at {self.at} ({' '.join(self.op)})"


def enumerate_faults(
    command: list[str],
    folder: Path,
    place: Path,
    *,
    strides: dict[str, int],
    setup: str = "",
    again: list[str] | None = None,
) -> tuple[list[tuple[str, str]], Path, list[Outcome]]:
    """Run `command` in copies of `folder`, below `place`: once undisturbed, then with each kind of fault at every
    `strides[kind]`-th operation. Returns the trace, the folder of the undisturbed run, and the outcomes.

    `setup` names a function `module:name` that is called in each fork first; `again` is the command after a fault.
    """
    place.mkdir(parents=True)
    job = {"command": command, "again": again or command, "folder": str(folder), "place": str(place)}
    job |= {"strides": strides, "setup": setup}
    (place / "job.json").write_text(json.dumps(job))
    path = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in path if p), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(place / "job.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trace, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [
        Outcome(**{**row, "after": Path(row["after"]), "final": Path(row["final"]), "op": tuple(row["op"])})
        for row in rows
    ]
    return [(op, path) for op, path in trace], place / "whole", outcomes


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    place, source = Path(job["place"]), Path(job["folder"])
    importlib.import_module("dualsmooth.cli")
    whole, info = place / "whole", place / "info.json"
    shutil.copytree(source, whole, symlinks=True)
    status, stderr = child(whole, job["command"], job["setup"], info=info)
    assert status == 0, f"the undisturbed run ended with {status}: {stderr}"
    seen = json.loads(info.read_text())
    for name in seen["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    assert threads <= 2, (
        f"forking needs a process that is not at work; it has {threads} threads (ONNX Runtime idles one)"
    )
    print(json.dumps(seen["trace"]), flush=True)
    for kind, stride in job["strides"].items():
        for at in range(0, len(seen["trace"]), stride):
            final, after = place / f"{kind}-{at}", place / f"{kind}-{at}-after"
            shutil.copytree(source, final, symlinks=True)
            status, stderr = child(final, job["command"], job["setup"], kind=kind, at=at)
            shutil.copytree(final, after, symlinks=True)
            again, again_stderr = child(final, job["again"], job["setup"])
            outcome = Outcome(kind, at, seen["trace"][at], status, stderr, after, again, again_stderr, final)
            print(json.dumps(asdict(outcome), default=str), flush=True)


def child(
    folder: Path, command: list[str], setup: str, *, kind: str = "kill", at: int | None = None, info: Path | None = None
) -> tuple[int, str]:
    """Run a command in a fork, in `folder`; returns its exit status (128 + signal where one ended it) and stderr."""
    log = folder.parent / "stderr.txt"
    process = os.fork()
    if process == 0:
        status = 70
        try:
            status = run(folder, command, setup, log, kind, at, info)
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(status)
    _, code = os.waitpid(process, 0)
    status = os.waitstatus_to_exitcode(code)
    return (128 - status if status < 0 else status), log.read_text(errors="replace")


def run(folder: Path, command: list[str], setup: str, log: Path, kind: str, at: int | None, info: Path | None) -> int:
    cli = importlib.import_module("dualsmooth.cli")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if setup:
        module, _, name = setup.partition(":")
        getattr(importlib.import_module(module), name)()
    injector = watch(folder, kind, at)
    status: Any = cli.main(command)
    injector.at = None
    if info is not None:
        info.write_text(json.dumps({"trace": injector.trace, "modules": sorted(set(sys.modules) - {"__main__"})}))
    return int(status)


if __name__ == "__main__":
    main()
