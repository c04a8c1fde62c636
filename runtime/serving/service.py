"""A smoother that many threads, or an event loop, share: `ds.Service`, made to be embedded in a server of any kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, Self, cast

from dualsmooth.runtime.datasets.single_images import ImageLike
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.noise.forks import forks
from dualsmooth.runtime.noise.streams import Noise
from dualsmooth.runtime.serving.dispatcher import Dispatcher
from dualsmooth.runtime.serving.metrics import Collector, registry_of
from dualsmooth.runtime.serving.protocol import CERTIFY, PREDICT, OverTime
from dualsmooth.runtime.serving.replies import Answer, Promised
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.prediction import Prediction
from dualsmooth.runtime.smoothing.settings import ALPHA, PREDICTION_PASSES, RULE, GroupsGiven, Settings
from dualsmooth.runtime.statistics.budgets import Budget


class Service(Dispatcher):
    """`certify` and `predict` of a smoother, for many callers at a time, whose passes share full batches.

    Threads call `certify` and `predict`, which block; coroutines await `certify_async` and `predict_async`, which give
    the same and stop sampling when their task is cancelled. `limits` bound what one request may cost and how many may
    wait. Make it after a fork (a child is refused), close it or use it in `with`, and close the smoother yourself.
    `observe(name, value)` hears what is counted.

    >>> import dualsmooth as ds
    >>> with ds.Service(ds.load("fashion-mnist"), ds.Limits(max_passes=100_000)) as service:
    ...     service.certify(ds.sample("fashion-mnist", 2), budget=ds.Fixed(200)).label  # trousers
    1
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def certify(
        self,
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        budget: Budget | None = None,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
        mode: str | None = None,
        r: float | None = None,
        timeout: float | None = None,
    ) -> Certificate:
        """With probability at least 1 - alpha, the dual classifier is constant within the returned radius (L2).

        Arguments as for `Smoother.certify`; a `seed` only where the limits allow it. `timeout`: seconds to wait, then
        sampling stops. Never ask again for what was over time: the first of several tries that comes back does not hold
        with 1 - alpha. Raises `InputError`, `EngineError`, and `ServerError`: `Refused` before any sampling (the queue
        is full, the service closes), `Stopped` after it began (over time, closed meanwhile).
        """
        asked = partial(
            Settings.of, alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups,
            at_most=at_most, mode=mode, r=r,
        )  # fmt: skip
        return cast(Certificate, _waited(self._begun(CERTIFY, image, asked), timeout))

    async def certify_async(
        self,
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        budget: Budget | None = None,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
        mode: str | None = None,
        r: float | None = None,
    ) -> Certificate:
        """`certify`, with the same guarantee and errors, for coroutines: a task that is cancelled, by `asyncio.timeout`
        for one, stops its sampling within a batch."""
        asked = partial(
            Settings.of, alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups,
            at_most=at_most, mode=mode, r=r,
        )  # fmt: skip
        return cast(Certificate, await asyncio.wrap_future(self._begun(CERTIFY, image, asked)))

    def predict(
        self,
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        n: int = PREDICTION_PASSES,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
        timeout: float | None = None,
    ) -> Prediction:
        """With probability at least 1 - alpha, abstains or returns the dual classifier's label at the input.

        Arguments as for `Smoother.predict`, errors and `timeout` as for `certify`.
        """
        asked = partial(
            Settings.of_prediction, n=n, alpha=alpha, rule=rule, route=route, seed=seed, noise=noise, groups=groups,
            at_most=at_most,
        )  # fmt: skip
        return cast(Prediction, _waited(self._begun(PREDICT, image, asked), timeout))

    async def predict_async(
        self,
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        n: int = PREDICTION_PASSES,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
    ) -> Prediction:
        """`predict`, with the same guarantee and errors, for coroutines; cancelled as `certify_async`."""
        asked = partial(
            Settings.of_prediction, n=n, alpha=alpha, rule=rule, route=route, seed=seed, noise=noise, groups=groups,
            at_most=at_most,
        )  # fmt: skip
        return cast(Prediction, await asyncio.wrap_future(self._begun(PREDICT, image, asked)))

    @property
    def ready(self) -> bool:
        """Whether a request would be taken now: the service is not closing, and its queue not full."""
        return self.live and not self._closing and len(self._waiting) < self.limits.max_waiting

    @property
    def live(self) -> bool:
        """Whether what was taken is worked on: the thread runs, here, and no batch has run for over the limits'
        `max_seconds`. What is not live does not recover: make another process."""
        began = self._batch_began
        hangs = began is not None and time.monotonic() - began > self.limits.max_seconds
        return self._forks == forks() and self._thread.is_alive() and not hangs

    def metrics(self) -> dict[str, float]:
        """What was counted since the service was made (`serving.metrics.METRICS`), and how many requests are `waiting`
        and `open` now."""
        return self.counts.read() | {"waiting": float(len(self._waiting)), "open": float(len(self._open))}

    def export_metrics(self, registry: Any = None, **labels: str) -> Any:
        """Have prometheus_client's `registry` (that of the process, if None) read `metrics` whenever it is asked, as
        `dualsmooth_passes_total` and so on, with `labels`. Returns what `registry.unregister` takes. Raises
        `InputError` where prometheus_client is not installed."""
        collector = Collector(self.metrics, labels)
        registry_of(registry).register(collector)
        return collector

    def _begun(self, mode: str, image: ImageLike, asked: Callable[[], Settings]) -> Future[Answer]:
        """A request that was taken. Raises `InputError`, `Refused`, `EngineError`."""
        reply = Promised()
        try:
            settings = asked()
            self.submit_settings(self.smoother.check_image(image), mode, settings, reply)
        except DualSmoothError:
            self.counts.add("refusals", 1)
            raise
        return reply.future


def _waited(future: Future[Answer], timeout: float | None) -> Answer:
    """The answer; whoever stops waiting stops the sampling."""
    try:
        return future.result(timeout)
    except FutureTimeout as error:
        if not future.cancel():  # it came meanwhile
            return future.result()
        raise OverTime(f"not answered within {timeout} s, as asked; no certificate is issued: allow more") from error
    except BaseException:  # such as a KeyboardInterrupt
        future.cancel()
        raise
