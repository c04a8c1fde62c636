"""Forked processes: a child has the memory of its parent, but none of its threads, and its locks as they were.

What works with threads or locks registers itself and makes them again in each child. Noise that the parent had begun
is not for the child: what began before a fork is given up there (`require_same_process`).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from typing import Any, Protocol

from dualsmooth.runtime.errors import EngineError

_forks = 0


class Renewed(Protocol):
    """Something with threads or locks of its own."""

    def after_fork(self) -> None:
        """Called in a forked child, before anything else runs there: make locks and threads anew, wait for none."""


_alive: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_children(thing: Renewed) -> None:
    """Have `thing.after_fork()` called in every forked child, as long as `thing` lives."""
    _alive.add(thing)


class ForkLock:
    """A lock that is free again in a forked child, where the thread that held it does not exist."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def never_free(thing: Any) -> None:
    """Keep `thing` until the process ends, and past the end of Python: what is freed there would wait for threads of
    the parent, or abort."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def forks() -> int:
    """How many forks lie between the first process and this one; what began at another number began elsewhere."""
    return _forks


def require_same_process(begun: int, what: str) -> None:
    """Raises `EngineError` where `what` began, at `begun` forks, in a process that this one was forked from."""
    if begun != _forks:
        raise EngineError(
            f"{what} was begun in another process, before this one was forked; begin it again in this process"
        )


def _renew() -> None:
    global _forks
    _forks += 1
    for thing in list(_alive):
        thing.after_fork()
    if "onnxruntime" in sys.modules:
        _skip_destructors()


def _skip_destructors() -> None:
    """Have this process end, once Python has, without the destructors of libraries, as multiprocessing's children do:
    ONNX Runtime's (1.32) wait for a thread of the parent, or abort."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc's; the last one to be registered runs first, and gets the exit status
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)
        libc.on_exit(ctypes.cast(libc.fcloseall, ctypes.c_void_p), None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
