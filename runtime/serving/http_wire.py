"""The wire over HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.serving.protocol import PING
from dualsmooth.runtime.serving.tensors import Tensors, tensors_of
from dualsmooth.runtime.serving.wire import Pixels, Sending, Wire


class HttpWire(Wire):
    """HTTP has no cancellation: an abandoned request is sampled to its end on the server."""

    def __init__(self, *arguments: Any) -> None:
        import tritonclient.http

        super().__init__(*arguments)
        self.module = tritonclient.http
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="dualsmooth-http")

    def _client(self, timeout: float) -> Any:
        """A connection of this thread: the HTTP client must not be shared between threads. It has one time-out for all
        that it asks, so each time-out has a connection of its own."""
        clients, key = self._local.__dict__, f"{timeout:g} s"
        if key not in clients:
            clients[key] = self.module.InferenceServerClient(
                self.address, connection_timeout=min(30.0, timeout), network_timeout=timeout
            )
        return clients[key]

    def read_config(self, timeout: float) -> dict[str, Any]:
        return dict(self._client(timeout).get_model_config(self.model))

    def infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        client = self._client(timeout)
        with contextlib.ExitStack() as held:
            ping = parameters.get("mode") == PING
            inputs = self.inputs(pixels) if ping else self.held_inputs(client, pixels, held)
            return tensors_of(client.infer(self.model, inputs, parameters=dict(parameters), outputs=self.outputs()))

    def start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
        future = self._pool.submit(self.infer, pixels, parameters, self.timeout)
        return future, future.cancel, lambda: None

    def stream(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Iterator[Tensors]:
        raise InputError(f"{self.url} streams over gRPC only; connect to grpc://host:8001")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._local.__dict__.values():
            client.close()
