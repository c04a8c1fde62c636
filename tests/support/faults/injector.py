"""Makes the k-th file-system operation of a process fail, or ends the process there.

Counted are the operations that change a folder: opening to write, write, truncate, fsync, rename, mkdir, rmdir, unlink
and chmod of anything below it. They are counted where Python makes them, so what a C library writes by itself is not.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("kill", "full", "readonly", "io", "int", "term")
"""SIGKILL, disk full from there on, read-only from there on, one input/output error, SIGINT, SIGTERM."""
_SPACE = ("open", "write", "mkdir", "fsync")


@dataclass
class Injector:
    """Counts the operations below `root` and strikes at number `at` (from 0; None: never)."""

    root: str
    kind: str = "kill"
    at: int | None = None
    trace: list[tuple[str, str]] = field(default_factory=list)
    unsynced: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.RLock)

    def strike(self, op: str, path: str) -> int | None:
        """Count one operation. Returns the error number it must fail with, if any."""
        with self.lock:
            number = len(self.trace)
            self.trace.append((op, path))
        if self.at is None or number < self.at:
            return None
        if number == self.at:
            if self.kind in ("int", "term"):
                os.kill(os.getpid(), signal.SIGINT if self.kind == "int" else signal.SIGTERM)
                return None
            return {"kill": -1, "full": errno.ENOSPC, "readonly": errno.EROFS, "io": errno.EIO}[self.kind]
        if self.kind == "full" and op in _SPACE:
            return errno.ENOSPC
        return errno.EROFS if self.kind == "readonly" and op != "fsync" else None

    def point(self, op: str, path: str) -> None:
        """Before an operation: fail, die, or pass."""
        if (found := self.strike(op, path)) is not None:
            self.fail(found, path)

    def fail(self, number: int, path: str) -> None:
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(number, os.strerror(number), path)

    def watched(self, path: Any, folder: int | None = None) -> str | None:
        """The path below `root`, or None where it is elsewhere. `path` may be a descriptor, `folder` one too."""
        if isinstance(path, int):
            full = os.readlink(f"/proc/self/fd/{path}")
        elif folder is not None:
            full = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        else:
            full = os.path.abspath(os.fsdecode(path))
        return os.path.relpath(full, self.root) if (full + "/").startswith(self.root + "/") else None

    def install(self) -> None:
        """Patch this process, for good."""
        self._patch_open()
        self._patch_os_open()
        for name in ("mkdir", "rmdir", "unlink", "remove", "chmod"):
            setattr(os, name, self._counted(getattr(os, name), "unlink" if name == "remove" else name))
        os.rename = self._renaming(os.rename)  # type: ignore[assignment]
        os.replace = self._renaming(os.replace)  # type: ignore[assignment]
        fsync, sendfile = os.fsync, os.sendfile

        def synced(handle: int) -> None:
            if (path := self.watched(handle)) is not None:
                self.point("fsync", path)
                self.unsynced.discard(path)
            fsync(handle)

        def sent(out: int, source: int, offset: int | None, count: int) -> int:
            if (path := self.watched(out)) is not None:
                found = self.strike("write", path)
                self.unsynced.add(path)
                if found is not None:
                    self.fail(found, path)
            return sendfile(out, source, offset, count)

        os.fsync, os.sendfile = synced, sent  # type: ignore[assignment]

    def _counted(self, real: Callable[..., Any], op: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if (where := self.watched(path, kwargs.get("dir_fd"))) is not None:
                self.point(op, where)
            return real(path, *args, **kwargs)

        return call

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **kwargs: Any) -> None:
            if (where := self.watched(target)) is not None:
                old = self.watched(source) or ""
                loose = sorted(p for p in self.unsynced if (p + "/").startswith(old + "/"))
                self.point("rename" if not loose else f"rename of unsynced {loose[0]}", where)
                self.unsynced = {where + p[len(old) :] if p in loose else p for p in self.unsynced}
            real(source, target, **kwargs)

        return call

    def _patch_os_open(self) -> None:
        real = os.open

        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                where = self.watched(path, kwargs.get("dir_fd"))
                if where is not None:
                    self.point("open", where)
            return real(path, flags, *args, **kwargs)

        os.open = call  # type: ignore[assignment]

    def _patch_open(self) -> None:
        injector, real = self, io.open

        class Raw(io.FileIO):
            """Writes half of what it is given before it fails: a torn write."""

            def write(self, data: Any) -> int:
                path = injector.watched(self.fileno())
                if path is None:
                    return int(super().write(data) or 0)
                injector.unsynced.add(path)
                found = injector.strike("write", path)
                if found is not None:
                    view = memoryview(data).cast("B")
                    super().write(view[: len(view) // 2])
                    injector.fail(found, path)
                return int(super().write(data) or 0)

            def truncate(self, size: int | None = None) -> int:
                if (path := injector.watched(self.fileno())) is not None:
                    injector.unsynced.add(path)
                    injector.point("truncate", path)
                return super().truncate(size)

        def call(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
            newline: Any = None, closefd: bool = True, opener: Any = None,
        ) -> Any:  # fmt: skip
            if not set("wax+") & set(mode) or injector.watched(file) is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int):
                injector.point("open", str(injector.watched(file)))
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        io.open = builtins.open = call  # type: ignore[assignment]


def watch(root: Path, kind: str = "kill", at: int | None = None) -> Injector:
    """Patch this process to count what happens below `root`, and to strike at operation `at`."""
    injector = Injector(str(root.resolve()), kind, at)
    injector.install()
    return injector
