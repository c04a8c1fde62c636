"""The wire to a Triton server: one request out, its tensors back, over gRPC or HTTP (`tritonclient`).

What is asked again, and what is not: only pings and requests that the server refused before it sampled anything. A
request that was lost or timed out is never repeated behind the caller's back: a certificate that holds with
probability 1 - alpha would then be the best of several tries.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import DualSmoothError, ServerError, one_line
from dualsmooth.runtime.noise.forks import forks, require_same_process
from dualsmooth.runtime.serving.protocol import IMAGE, INSTANCE, OUTPUTS, PING, Refused, ServerFull, from_line
from dualsmooth.runtime.serving.shared_memory import shared
from dualsmooth.runtime.serving.tensors import Tensors, text_of
from dualsmooth.runtime.smoothing.meter import Turn

Pixels = npt.NDArray[np.float32]
Sending = tuple[Future[Tensors], Callable[[], object], Callable[[], object]]
T = TypeVar("T")
QUEUE_IS_FULL = "maximum queue size"
"""Triton 2.51 (24.10), where a queue policy limits the requests that wait; its status is UNAVAILABLE, as when it cannot
be reached."""
ALIVE_SECONDS = 10.0
"""How long a server may take for what needs no sampling."""
PROBE_SECONDS = 2.0
"""A request that takes longer is followed by pings: a server whose Python process died never answers what it had."""


class Wire(ABC):
    """One server and one of its models. May be used from several threads."""

    module: Any

    def __init__(self, url: str, address: str, model: str, timeout: float, retries: int, shared_memory: bool) -> None:
        self.url, self.address, self.model = url, address, model
        self.timeout, self.retries, self.shared_memory = timeout, retries, shared_memory
        self._instance: str | None = None
        self._heard, self.begun_at = -1e9, forks()

    @abstractmethod
    def read_config(self, timeout: float) -> dict[str, Any]:
        """The model's configuration, as Triton's JSON. Raises the client library's errors."""

    @abstractmethod
    def infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        """One request, waiting for it. Raises the client library's errors."""

    @abstractmethod
    def start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
        """One request: its future, which may hold the client library's errors, what cancels it, and what frees its
        shared memory afterwards."""

    @abstractmethod
    def stream(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Iterator[Tensors]:
        """All responses of the decoupled variant, `<model>_stream`; cancelled where the caller stops early."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""

    def begun_here(self) -> bool:
        """Whether this process opened the connection; a forked child only has its parent's."""
        return self.begun_at == forks()

    def send(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Pending:
        """Send one request. Raises `ServerError` where the server cannot be reached."""
        return Pending(self, pixels, parameters)

    def config(self) -> dict[str, Any]:
        """The model's configuration, as Triton's JSON; asked again while the server cannot be reached. Raises
        `ServerError`."""

        def read() -> dict[str, Any]:
            try:
                return self.read_config(ALIVE_SECONDS)
            except Exception as error:
                raise self.translated(error) from error

        return self._persistently(read)

    def ping(self, timeout: float = ALIVE_SECONDS) -> str:
        """The identity of the model's process. Raises the translated error of the client library."""
        try:
            back = self.infer(np.zeros((1, 1, 1), np.float32), {"mode": PING}, timeout)
            self._instance = str(json.loads(text_of(back))[INSTANCE])
        except Exception as error:
            self._heard = -1e9
            raise self.translated(error) from error
        self._heard = time.monotonic()
        return self._instance

    def instance(self) -> str:
        """The process that requests now go to; asked again (and again, while it cannot be reached) after a second.
        Raises `EngineError` in a forked child, where gRPC's threads are not: it would wait for ever."""
        require_same_process(self.begun_at, f"the connection to {self.url}")
        if self._instance is not None and time.monotonic() - self._heard < 1.0:
            return self._instance
        return self._persistently(self.ping)

    def _persistently(self, ask: Callable[[], T]) -> T:
        """What `ask` returns; after a `ServerError` it is tried again, `retries` times."""
        for attempt in range(self.retries):
            try:
                return ask()
            except ServerError:
                time.sleep(0.1 * 2**attempt)
        return ask()

    def translated(self, error: BaseException) -> DualSmoothError:
        """The client library's error as one of ours; the server's own sentences stay as they are."""
        if isinstance(error, DualSmoothError):
            return error
        message = str(error.message() if hasattr(error, "message") else one_line(error))
        kind, sentence = from_line(" ".join(message.split()))
        sentence = sentence[:500]
        if kind is None:
            return self._of_triton(str(error.status() if hasattr(error, "status") else ""), sentence, error)
        return kind(sentence if not issubclass(kind, ServerError) else f"{self.url}: {sentence}")

    def _of_triton(self, status: str, message: str, error: BaseException) -> ServerError:
        """What Triton itself, the network or the client library says: there is no code of ours."""
        if status == "StatusCode.DEADLINE_EXCEEDED" or isinstance(error, TimeoutError):
            return ServerError(
                f"{self.url} gave no answer within {self.timeout:g} s; ask for less, or set timeout higher"
            )
        if QUEUE_IS_FULL in message:
            return ServerFull(f"{self.url}: {message}")
        if status == "StatusCode.UNAVAILABLE" or isinstance(error, OSError):
            return ServerError(f"{self.url} cannot be reached ({message[:160]}); start the server or check the address")
        return ServerError(f"{self.url}: {message or type(error).__name__}")

    def inputs(self, pixels: Pixels) -> list[Any]:
        """The input of a request."""
        tensor = self.module.InferInput(IMAGE, list(pixels.shape), "FP32")
        tensor.set_data_from_numpy(pixels)
        return [tensor]

    def held_inputs(self, client: Any, pixels: Pixels, held: ExitStack) -> list[Any]:
        """The same; where shared memory was asked for, in that, until `held` is closed."""
        if not self.shared_memory:
            return self.inputs(pixels)
        tensor = self.module.InferInput(IMAGE, list(pixels.shape), "FP32")
        held.enter_context(shared(client, tensor, pixels))
        return [tensor]

    def outputs(self) -> list[Any]:
        """The outputs that a request asks for."""
        return [self.module.InferRequestedOutput(name) for name in OUTPUTS]


class Pending:
    """A request on its way."""

    def __init__(self, wire: Wire, pixels: Pixels, parameters: Mapping[str, Any]) -> None:
        self._wire, self._pixels, self._parameters = wire, pixels, parameters
        self._attempts = 0
        self._send()

    def _send(self) -> None:
        self._instance = self._wire.instance()
        self._end = time.monotonic() + self._wire.timeout
        self._future, self._cancel, self._free = self._wire.start(self._pixels, self._parameters)

    def timed(self, turn: Turn) -> Turn:
        """The same turn, which ends when the answer is here, whoever reads it when."""
        self._future.add_done_callback(lambda _: turn.end())
        return turn

    def cancel(self) -> None:
        """Tell the server to stop (gRPC), and forget the answer."""
        self._cancel()
        self._free()

    def result(self) -> Tensors:
        """Wait for the tensors. Raises `InputError` with the server's line, or `ServerError`."""
        try:
            return self._wait()
        finally:
            self._free()

    def _wait(self) -> Tensors:
        require_same_process(self._wire.begun_at, f"a request to {self._wire.url}")
        while True:
            try:
                return self._future.result(min(PROBE_SECONDS, max(0.0, self._end - time.monotonic()) + 1))
            except FutureTimeout:
                self._probe()
            except Exception as error:
                ours = self._wire.translated(error)
                if not isinstance(ours, Refused) or self._attempts == self._wire.retries:
                    raise ours from error
                self._free()
                time.sleep(0.1 * 2**self._attempts)
                self._attempts += 1
                self._send()

    def _probe(self) -> None:
        if time.monotonic() > self._end:
            self.cancel()
            raise self._wire.translated(TimeoutError())
        try:
            alive = self._wire.ping() == self._instance
        except DualSmoothError as error:
            self.cancel()
            raise ServerError(f"the request was lost: {error}") from error
        if not alive and not self._future.done():
            self.cancel()
            raise ServerError(f"{self._wire.url} was restarted, the request is lost; ask again")
