"""What a service counts: one table of names, in a plain dict, for Triton and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.forks import ForkLock

METRICS = {
    "passes": "Forward passes that were counted",
    "certificates": "Certificates issued, abstentions included",
    "predictions": "Predictions answered, abstentions included",
    "abstentions": "Certificates and predictions that abstained",
    "refusals": "Requests that were refused before sampling",
    "failures": "Requests that failed or were cancelled after they were accepted",
    "lost": "Answers that could not be sent",
    "seconds": "Seconds from acceptance to answer, added up over requests",
}
"""Counters, which only grow."""
GAUGES = {"waiting": "Requests that wait to be sampled", "open": "Requests that are sampled now"}


class Counts:
    """The counters of one service. Threads may share them."""

    def __init__(self, observe: Callable[[str, float], None] | None = None) -> None:
        """`observe(name, value)` hears of everything that is added."""
        self._values, self._lock = dict.fromkeys(METRICS, 0.0), ForkLock()
        self._observe = observe or (lambda name, value: None)

    def add(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name] += value
        self._observe(name, value)

    def read(self) -> dict[str, float]:
        """All counters, by name."""
        with self._lock:
            return dict(self._values)


class Collector:
    """Metrics as prometheus_client asks for them, named as behind Triton: `dualsmooth_passes_total`, …"""

    def __init__(self, read: Callable[[], Mapping[str, float]], labels: Mapping[str, str]) -> None:
        self._read, self._labels = read, dict(labels)

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, value in self._read().items():
            kind = CounterMetricFamily if name in METRICS else GaugeMetricFamily
            family = kind(f"dualsmooth_{name}", (METRICS | GAUGES)[name], labels=list(self._labels))
            family.add_metric(list(self._labels.values()), value)
            yield family


def registry_of(given: Any) -> Any:
    """A registry of prometheus_client: `given`, or that of the process. Raises `InputError` where it is missing."""
    try:
        import prometheus_client
    except ImportError as error:
        raise InputError(
            "exporting metrics needs prometheus_client; pip install prometheus_client, or read service.metrics()"
        ) from error
    return prometheus_client.REGISTRY if given is None else given
