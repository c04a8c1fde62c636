"""Where answers go."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.prediction import Prediction

Answer = Certificate | Prediction


class Reply(Protocol):
    """Where the answer to one request goes. Called from the service's thread only."""

    wants_progress: bool

    def answered(self, answer: Answer) -> None: ...

    def progressed(self, answer: Certificate) -> None: ...

    def failed(self, error: DualSmoothError) -> None: ...

    def cancelled(self) -> bool: ...


@dataclass
class Collected:
    """A reply that keeps what it is told; for callers in the same process."""

    answer: Answer | None = None
    error: DualSmoothError | None = None
    progress: list[Certificate] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    stop: bool = False
    wants_progress: bool = False

    def answered(self, answer: Answer) -> None:
        self.answer = answer
        self.done.set()

    def progressed(self, answer: Certificate) -> None:
        self.progress.append(answer)

    def failed(self, error: DualSmoothError) -> None:
        self.error = error
        self.done.set()

    def cancelled(self) -> bool:
        return self.stop


class Promised:
    """A reply that keeps a promise: its `future`, whose `cancel` stops the sampling."""

    wants_progress = False

    def __init__(self) -> None:
        self.future: Future[Answer] = Future()

    def answered(self, answer: Answer) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(answer)

    def progressed(self, answer: Certificate) -> None: ...

    def failed(self, error: DualSmoothError) -> None:
        if self.future.set_running_or_notify_cancel():
            mine = type(error)(*error.args)  # one failed batch fails many requests
            mine.__cause__ = error
            self.future.set_exception(mine)

    def cancelled(self) -> bool:
        return self.future.cancelled()
