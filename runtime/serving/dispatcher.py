"""The thread that samples for everybody: many requests at a time share the full batches of one smoother.

Bad requests are refused before any sampling (`requests.accept`); accepted ones are answered exactly once: by a
certificate or prediction, or by an error. Knows neither of Triton nor of who waits, and how.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dualsmooth.runtime.errors import DualSmoothError, EngineError, one_line
from dualsmooth.runtime.noise.forks import forks, require_same_process
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.metrics import Counts
from dualsmooth.runtime.serving.protocol import Cancelled, GoingDown, OverTime, ServerFull, WentDown
from dualsmooth.runtime.serving.replies import Reply
from dualsmooth.runtime.serving.requests import Ticket, accept, asked_here, prepare
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.sampler import Sampler
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.votes import Tally


class Dispatcher:
    """One thread that samples, and the requests that it has. `observe(name, value)` hears what is counted."""

    def __init__(
        self, smoother: Smoother, limits: Limits | None = None, *, observe: Callable[[str, float], None] | None = None
    ) -> None:
        self.smoother, self.limits, self.counts = smoother, limits or Limits(), Counts(observe)
        self._secret = Seed.make(None)
        self._sampler = Sampler(smoother.bundle, smoother.engine, batch_size=smoother.batch_size, fair=True)
        self._open: list[Ticket] = []
        self._waiting: deque[Ticket] = deque()
        self._news = threading.Condition()
        self._closing, self._drained_by = False, float("inf")
        self._drawn, self._counted = 0, 0.0
        self._forks = forks()
        self._batch_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="dualsmooth-service", daemon=True)
        self._thread.start()

    def submit(self, image: Any, parameters: Mapping[str, Any], reply: Reply) -> None:
        """Take a request; the answer goes to `reply`, from the service's thread. Raises `InputError` where the request
        is bad, `Refused` where the server is full or going down, and `EngineError` in a forked child; then `reply` is
        not called."""
        require_same_process(self._forks, "this service")
        self._take(accept(self.smoother, self.limits, image, parameters, reply, self._secret))

    def submit_settings(self, image: Any, mode: str, settings: Settings, reply: Reply) -> None:
        """`submit`, for callers in this process: what is asked for in one piece, with its seed and noise."""
        require_same_process(self._forks, "this service")
        self._take(prepare(self.smoother, self.limits, image, asked_here(mode, settings, self.limits), reply))

    def _take(self, ticket: Ticket) -> None:
        with self._news:
            self.check()
            if len(self._waiting) >= self.limits.max_waiting:
                raise ServerFull(f"the server is full ({len(self._waiting)} requests wait); ask again later")
            self._waiting.append(ticket)
            self._news.notify()

    def check(self) -> None:
        """Raises `GoingDown` unless requests are being worked on, and `EngineError` in a forked child."""
        require_same_process(self._forks, "this service")
        if self._closing or not self._thread.is_alive():
            raise GoingDown("the server is going down; ask another one")

    def close(self, *, drain: float | None = None) -> None:
        """Take no more requests, answer those that were taken, and end.

        What is left after `drain` seconds fails (0: at once; None: after the limits' `max_seconds`, when all are
        answered). Any thread may call it, twice does no harm, and a forked child leaves it to its parent.
        """
        if self._forks != forks():
            return
        with self._news:
            self._closing = True
            patience = self.limits.max_seconds if drain is None else drain
            self._drained_by = min(self._drained_by, time.monotonic() + patience)
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._admit():
                self._sweep()
                self._step()
            reason: DualSmoothError = WentDown("the server went down; no certificate is issued")
        except BaseException as error:
            reason = EngineError(f"the server failed ({one_line(error)}); no certificate is issued")
        self._sampler.close()
        with self._news:
            self._closing = True
            left = [*self._open, *self._waiting]
            self._open, self._waiting = [], deque()
        for ticket in left:
            self._fail(ticket, reason)

    def _admit(self) -> bool:
        """Wait for work; open as many requests as may be sampled at a time. False when the service ends."""
        with self._news:
            while not (self._open or self._waiting or self._closing):
                self._news.wait()
            if not (self._open or self._waiting) or time.monotonic() >= self._drained_by:
                return False
            fresh: list[Ticket] = []
            while self._waiting and len(self._open) + len(fresh) < self.limits.max_open:
                fresh.append(self._waiting.popleft())
        for ticket in fresh:
            self._open.append(ticket)
            self._sampler.add(ticket.job)
        return True

    def _sweep(self) -> None:
        """Between batches: give up what nobody waits for or what takes too long."""
        now = time.monotonic()
        with self._news:
            both = [*self._open, *self._waiting]
        for ticket in both:
            if ticket.reply.cancelled():
                self._give_up(ticket, Cancelled("cancelled; no certificate is issued"))
            elif now > ticket.deadline:
                limit = f"took over {self.limits.max_seconds:g} s, this server's limit"
                self._give_up(ticket, OverTime(f"{limit}; no certificate is issued: ask for less"))

    def _step(self) -> None:
        if not self._open:
            return
        self._batch_began = time.monotonic()
        try:
            self._sampler.step()
        finally:
            self._batch_began = None
        self._count(self._sampler.batch_passes)
        for ticket in list(self._open):
            if ticket.job.failure:
                self._give_up(ticket, ticket.job.failure)
            elif ticket.job.open == 0:
                self._finish(ticket)
            elif ticket.terms is not None:
                self._progress(ticket)

    def _count(self, passes: int, *, now: bool = False) -> None:
        """Add up passes; tell them every second, and with every answer."""
        self._drawn += passes
        if now or time.monotonic() - self._counted > 1.0:
            self.counts.add("passes", float(self._drawn))
            self._drawn, self._counted = 0, time.monotonic()

    def _finish(self, ticket: Ticket) -> None:
        try:
            answer = ticket.answer()
        except Exception as error:
            self._give_up(ticket, EngineError(f"the votes could not be settled ({one_line(error)})"))
            return
        self._open.remove(ticket)
        kind = "certificates" if isinstance(answer, Certificate) else "predictions"
        seconds = time.monotonic() - ticket.started
        self._count(0, now=True)
        for name, value in ((kind, 1), ("abstentions", answer.abstained), ("seconds", seconds)):
            self.counts.add(name, float(value))
        self._tell(ticket.reply.answered, answer)

    def _progress(self, ticket: Ticket) -> None:
        """Tell the certificate so far after each new look; bounds of all looks hold together, so each is valid."""
        looks = sum(map(len, ticket.job.tally.looks.values()))
        if looks == ticket.looks:
            return
        ticket.looks = looks
        if ticket.reply.wants_progress and (so_far := self._so_far(ticket)) is not None:
            self._tell(ticket.reply.progressed, so_far)

    def _so_far(self, ticket: Ticket) -> Certificate | None:
        try:
            answer = ticket.answer()
        except DualSmoothError:  # such as a rule that needs votes that are still to come
            return None
        if not isinstance(answer, Certificate):
            return None
        tally = answer.tally  # which goes on growing
        looks, sure = ({stream: list(each) for stream, each in of.items()} for of in (tally.looks, tally.sure))
        now = Tally(tally.classes, tally.levels, looks, sure)
        return replace(answer, tally=now)

    def _give_up(self, ticket: Ticket, error: DualSmoothError) -> None:
        self._sampler.drop(ticket.job)
        with self._news:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self._open.remove(ticket)
        self._fail(ticket, error)

    def _fail(self, ticket: Ticket, error: DualSmoothError) -> None:
        self._count(0, now=True)
        self.counts.add("failures", 1.0)
        self._tell(ticket.reply.failed, error)

    def _tell(self, say: Callable[..., None], what: Any) -> None:
        """A client that is gone must not take the others' answers with it."""
        try:
            say(what)
        except Exception as error:
            self.counts.add("lost", 1.0)
            print(f"dualsmooth: an answer could not be sent ({one_line(error)})", flush=True)
