"""Serving: many requests at a time share the full batches of one smoother. Knows nothing of Triton.

A request is an image and a dictionary of parameters. Bad ones are refused with the line that a local call gives, before
any sampling; accepted ones are answered exactly once: by a certificate or prediction, or by an error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from dualsmooth.runtime.errors import DualSmoothError, EngineError, InputError, ServerError, one_line
from dualsmooth.runtime.noise.streams import Seed, parse_noise
from dualsmooth.runtime.smoothing.certificate import Certificate, Prediction
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.budgets import Fixed, parse_budget, whole
from dualsmooth.runtime.statistics.certification import Terms
from dualsmooth.runtime.statistics.votes import Tally

CERTIFY, PREDICT, PING = "certify", "predict", "ping"
"""`ping` asks only whether the service lives; it is answered without sampling (see `Service.check`)."""
PARAMETERS = {
    CERTIFY: ("mode", "alpha", "budget", "rule", "route", "seed", "nonce", "noise", "index", "all_levels"),
    PREDICT: ("mode", "alpha", "n", "rule", "route", "seed", "nonce", "noise", "index"),
}
Answer = Certificate | Prediction
NOTHING = "no certificate is issued"
"""Stands in the line of every request that was accepted and then given up."""


class Refused(ServerError):
    """The server is full: nothing was sampled, so asking again is safe."""


class Stopped(ServerError):
    """Given up after it was accepted: cancelled, over the time limit, or the server went down."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost. `max_passes`: the most passes that its budget could take, all stages and levels;
    `max_seconds`: from acceptance to answer; `max_image_values`: C*H*W. `max_open` requests are sampled at a time and
    `max_waiting` more may queue. `allow_seed`: whether a client may choose the noise, for replays and tests; its
    certificates say so."""

    max_passes: int = 2_000_000
    max_seconds: float = 300.0
    max_image_values: int = 1 << 22
    max_open: int = 32
    max_waiting: int = 256
    allow_seed: bool = False

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Limits:
        """From a model configuration's string parameters; absent ones have the defaults. Raises `InputError`."""
        given: dict[str, Any] = {}
        for name, default in cls().__dict__.items():
            if name in parameters and type(default) is bool:
                if parameters[name] not in ("true", "false"):
                    raise InputError(f"config parameter {name} is {parameters[name][:40]!r}; expected true or false")
                given[name] = parameters[name] == "true"
            elif name in parameters:
                try:
                    given[name] = type(default)(parameters[name])
                    if not 0 < given[name] < float("inf"):
                        raise ValueError
                except ValueError:
                    raise InputError(
                        f"config parameter {name} is {parameters[name][:40]!r}; expected a positive "
                        f"{type(default).__name__}, e.g. {default}"
                    ) from None
        return cls(**given)


class Reply(Protocol):
    """Where the answer to one request goes. Called from the service's thread only."""

    wants_progress: bool

    def answered(self, answer: Answer) -> None: ...

    def progressed(self, answer: Certificate) -> None: ...

    def failed(self, error: DualSmoothError) -> None: ...

    def cancelled(self) -> bool: ...


@dataclass(eq=False)
class Ticket:
    """An accepted request."""

    job: Job
    answer: Callable[[], Answer]
    reply: Reply
    deadline: float
    started: float
    terms: Terms | None = None
    looks: int = field(default=0)


def accept(
    smoother: Smoother,
    limits: Limits,
    image: Any,
    parameters: Mapping[str, Any],
    reply: Reply,
    secret: Seed | None = None,
) -> Ticket:
    """Check a request and prepare its work. `secret`: the server's own part in the noise of requests with a nonce.
    Raises `InputError` with the same line as `certify` or `predict`."""
    mode = parameters.get("mode", CERTIFY)
    if not isinstance(mode, str) or mode not in PARAMETERS:
        raise InputError(f"mode {str(mode)[:40]!r} is unknown; expected {CERTIFY} or {PREDICT}")
    for name in parameters:
        if name not in PARAMETERS[mode]:
            known = ", ".join(PARAMETERS[mode][1:])
            raise InputError(f"parameter {str(name)[:40]!r} is unknown in mode {mode}; expected one of {known}")
    parameters = {name: _read(name, value) for name, value in parameters.items()}
    alpha, rule = parameters.get("alpha", 1e-3), parameters.get("rule", "interval")
    if mode == CERTIFY:
        budget = parameters.get("budget", "fixed:10000")
        budget = parse_budget(budget) if isinstance(budget, str) else budget
        checked = smoother.terms(alpha=alpha, budget=budget, rule=rule, route=parameters.get("route"))
        terms: Terms | None = checked
        budget = checked.budget
    else:
        terms, budget = None, Fixed(parameters.get("n", 1_000))
        smoother.prediction_terms(alpha=alpha, n=budget.n, rule=rule, route=parameters.get("route"))
    seed = _seed(parameters, limits, secret)
    seed.require_generator()
    all_levels = parameters.get("all_levels", False)
    if type(all_levels) is not bool:
        raise InputError(f"all_levels is {str(all_levels)[:40]!r}; expected true or false")
    levels = len(smoother.bundle.sigmas)
    passes = (budget.looks[-1] + (budget.selection if terms else 0)) * (levels + 1)
    if passes > limits.max_passes:
        raise InputError(
            f"budget {budget} may take {passes} passes; expected at most {limits.max_passes} on this server: ask "
            "for less"
        )
    if np.size(image) > limits.max_image_values:
        raise InputError(
            f"image has {np.size(image)} values; expected at most {limits.max_image_values} on this server: resize it"
        )
    image = np.array(image)  # the caller's memory may be reused as soon as this returns
    started = time.monotonic()
    deadline = started + limits.max_seconds
    if terms is None:
        work, said = smoother.prediction_job(
            image, alpha=alpha, n=budget.looks[-1], rule=rule, route=parameters.get("route"), seed=seed
        )
        return Ticket(work, lambda: smoother.prediction(work, said), reply, deadline, started)
    agreed, job = terms, smoother.job(image, terms, seed, all_levels=all_levels)
    return Ticket(job, lambda: smoother.certificate(agreed, job), reply, deadline, started, terms)


def _read(name: str, value: Any) -> Any:
    """Numbers and flags that were sent as text, as Triton's older clients do, and seeds beyond 64 bits must; what is
    not one stays text, for the check of that parameter to name."""
    if not isinstance(value, str) or len(value) >= 50:
        return value
    try:
        match name:
            case "n" | "index":
                return whole(value)
            case "seed":
                return int(value)
            case "alpha":
                return float(value)
            case "all_levels":
                return {"true": True, "false": False}.get(value.lower(), value)
    except (ValueError, OverflowError):
        pass
    return value


def _seed(parameters: Mapping[str, Any], limits: Limits, secret: Seed | None) -> Seed:
    """The seed that a request asks for, where that is allowed; else the server's, the same for the same nonce. Seeds
    are integers; ones beyond 64 bits travel as decimal text. Raises `InputError`."""
    value, nonce = parameters.get("seed"), parameters.get("nonce")
    noise, index = parse_noise(parameters.get("noise", "float")), parameters.get("index", 0)
    if nonce is not None and not (isinstance(nonce, str) and 16 <= len(nonce) <= 64 and nonce.isalnum()):
        raise InputError(f"nonce is {str(nonce)[:70]!r}; expected 16 to 64 random letters and digits")
    if value is not None and not limits.allow_seed:
        raise InputError(
            "this server chooses its own seeds; ask without one, or set allow_seed to true in its config.pbtxt"
        )
    if value is None and nonce is not None and secret is not None:
        return replace(secret.answering(nonce), noise=noise).at(index)
    return Seed.make(value, noise).at(index)


class Service:
    """One thread that samples for everybody. `observe(name, value)` hears what the metrics count."""

    def __init__(
        self, smoother: Smoother, limits: Limits | None = None, *, observe: Callable[[str, float], None] | None = None
    ) -> None:
        self.smoother, self.limits = smoother, limits or Limits()
        self._observe = observe or (lambda name, value: None)
        self._secret = Seed.make(None)
        self._sampler = Sampler(smoother.bundle, smoother.engine, batch_size=smoother.batch_size, fair=True)
        self._open: list[Ticket] = []
        self._waiting: deque[Ticket] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._drawn, self._counted = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="dualsmooth-service", daemon=True)
        self._thread.start()

    def submit(self, image: Any, parameters: Mapping[str, Any], reply: Reply) -> None:
        """Take a request; the answer goes to `reply`, from the service's thread. Raises `InputError` where the request
        is bad and `Refused` where the server is full; then `reply` is not called."""
        ticket = accept(self.smoother, self.limits, image, parameters, reply, self._secret)
        self.check()
        with self._news:
            if len(self._waiting) >= self.limits.max_waiting:
                raise Refused(f"the server is full ({len(self._waiting)} requests wait); ask again later")
            self._waiting.append(ticket)
            self._news.notify()

    def check(self) -> None:
        """Raises `Refused` unless requests are being worked on."""
        if self._closing or not self._thread.is_alive():
            raise Refused("the server is going down; ask another one")

    def close(self) -> None:
        """Stop sampling; open and waiting requests fail."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._admit():
                self._sweep()
                self._step()
            reason: DualSmoothError = Stopped(f"the server went down; {NOTHING}")
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
        """Wait for work; open as many requests as may be sampled at a time. False when the service closes."""
        with self._news:
            while not (self._open or self._waiting or self._closing):
                self._news.wait()
            if self._closing:
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
                self._give_up(ticket, Stopped(f"cancelled; {NOTHING}"))
            elif now > ticket.deadline:
                limit = f"{self.limits.max_seconds:g} s"
                self._give_up(ticket, Stopped(f"took over {limit}, this server's limit; {NOTHING}: ask for less"))

    def _step(self) -> None:
        if not self._open:
            return
        try:
            self._sampler.step()
        except DualSmoothError as error:
            lost = self._sampler.batch_jobs
            for ticket in [t for t in self._open if any(t.job is job for job in lost)]:
                self._give_up(ticket, error)
            return
        self._count(self._sampler.batch_passes)
        for ticket in list(self._open):
            if ticket.job.open == 0:
                self._finish(ticket)
            elif ticket.terms is not None:
                self._progress(ticket)

    def _count(self, passes: int, *, now: bool = False) -> None:
        """Add up passes; tell them every second, and with every answer."""
        self._drawn += passes
        if now or time.monotonic() - self._counted > 1.0:
            self._observe("passes", float(self._drawn))
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
            self._observe(name, float(value))
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
        now = Tally(tally.classes, tally.levels, {stream: list(looks) for stream, looks in tally.looks.items()})
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
        self._observe("failures", 1.0)
        self._tell(ticket.reply.failed, error)

    def _tell(self, say: Callable[..., None], what: Any) -> None:
        """A client that is gone must not take the others' answers with it."""
        try:
            say(what)
        except Exception as error:
            self._observe("lost", 1.0)
            print(f"dualsmooth: an answer could not be sent ({one_line(error)})", flush=True)


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
