"""The wire to a Triton server: one request out, its tensors back, over gRPC or HTTP (`tritonclient`).

What is asked again, and what is not: only pings and requests that the server refused before it sampled anything. A
request that was lost or timed out is never repeated behind the caller's back: a certificate that holds with
probability 1 - alpha would then be the best of several tries.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import DualSmoothError, InputError, ServerError, one_line
from dualsmooth.runtime.noise.forks import forks, require_same_process
from dualsmooth.runtime.serving.service import NOTHING, PING, Refused

Tensors = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.float32]
Sending = tuple[Future[Tensors], Callable[[], object], Callable[[], object]]
OUTPUTS = ("LABEL", "RADIUS", "SIGMA", "ABSTAINED", "CERTIFICATE")
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
"""A server that comes back is found within a second."""
PROBE_SECONDS = 2.0
"""A request that takes longer is followed by pings: a server whose Python process died never answers what it had."""


def open_wire(url: str, model: str, *, timeout: float, retries: int, shared_memory: bool) -> Wire:
    """`grpc://host:port` or `http://host:port`. Raises `InputError`."""
    scheme, _, address = url.partition("://")
    if scheme not in ("grpc", "http") or not address.rpartition(":")[2].isdecimal() or not address.rpartition(":")[0]:
        raise InputError(f"server {url!r}; expected grpc://host:8001 or http://host:8000")
    if not timeout > 0 or retries < 0:
        raise InputError(f"timeout {timeout}, retries {retries}; expected a positive timeout and at least 0 retries")
    try:
        if scheme == "grpc":
            return GrpcWire(url, address, model, timeout, retries, shared_memory)
        return HttpWire(url, address, model, timeout, retries, shared_memory)
    except ImportError as error:
        raise InputError(f"{url} needs tritonclient; install it with pip install 'dualsmooth[triton]'") from error


class Wire(ABC):
    """One server and one of its models. May be used from several threads."""

    module: Any

    def __init__(self, url: str, address: str, model: str, timeout: float, retries: int, shared_memory: bool) -> None:
        self.url, self.address, self.model = url, address, model
        self.timeout, self.retries, self.shared_memory = timeout, retries, shared_memory
        self._instance: str | None = None
        self._heard, self._forks = -1e9, forks()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The model's configuration parameters."""

    @abstractmethod
    def _infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        """One request, waiting for it. Raises the client library's errors."""

    @abstractmethod
    def _start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
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
        return self._forks == forks()

    def send(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Pending:
        """Send one request. Raises `ServerError` where the server cannot be reached."""
        return Pending(self, pixels, parameters)

    def ping(self, timeout: float = 10.0) -> str:
        """The identity of the model's process. Raises the translated error of the client library."""
        try:
            back = self._infer(np.zeros((1, 1, 1), np.float32), {"mode": PING}, timeout)
            self._instance = str(json.loads(text_of(back))["instance"])
        except Exception as error:
            self._heard = -1e9
            raise self.translated(error) from error
        self._heard = time.monotonic()
        return self._instance

    def instance(self) -> str:
        """The process that requests now go to; asked again (and again, while it cannot be reached) after a second.
        Raises `EngineError` in a forked child, where gRPC's threads are not: it would wait for ever."""
        require_same_process(self._forks, f"the connection to {self.url}")
        for attempt in range(self.retries + 1):
            if self._instance is not None and time.monotonic() - self._heard < 1.0:
                break
            try:
                return self.ping()
            except ServerError:
                if attempt == self.retries:
                    raise
                time.sleep(0.1 * 2**attempt)
        assert self._instance is not None
        return self._instance

    def translated(self, error: BaseException) -> DualSmoothError:
        """The client library's error as one of ours; the server's own lines stay as they are."""
        if isinstance(error, DualSmoothError):
            return error
        status = str(error.status() if hasattr(error, "status") else "").removeprefix("StatusCode.")
        message = str(error.message() if hasattr(error, "message") else one_line(error))
        message = " ".join(message.split())[:500]
        stopped = NOTHING in message  # over HTTP, Triton 24.10 gives status 400 to cancelled requests as well
        if status in ("INVALID_ARGUMENT", "400") and not stopped:
            return InputError(message)
        if message.startswith("the server is full") or "maximum queue size" in message:
            return Refused(f"{self.url}: {message}")
        if status == "DEADLINE_EXCEEDED" or "timed out" in message.lower() or "Deadline" in message:
            return ServerError(
                f"{self.url} gave no answer within {self.timeout:g} s; ask for less, or set timeout higher"
            )
        if status == "UNAVAILABLE" or isinstance(error, OSError):
            return ServerError(f"{self.url} cannot be reached ({message[:160]}); start the server or check the address")
        return ServerError(f"{self.url}: {message or type(error).__name__}")

    def _inputs(self, pixels: Pixels) -> list[Any]:
        tensor = self.module.InferInput("IMAGE", list(pixels.shape), "FP32")
        tensor.set_data_from_numpy(pixels)
        return [tensor]

    def _outputs(self) -> list[Any]:
        return [self.module.InferRequestedOutput(name) for name in OUTPUTS]

    @staticmethod
    def _tensors(result: Any) -> Tensors:
        return {name: result.as_numpy(name) for name in OUTPUTS}

    @contextlib.contextmanager
    def _shared(self, client: Any, pixels: Pixels) -> Iterator[list[Any]]:
        """The image in system shared memory, which a server on the same machine reads in place."""
        from tritonclient.utils import shared_memory as shm

        name, size = f"dualsmooth-{uuid4().hex}", pixels.nbytes
        region = shm.create_shared_memory_region(name, f"/{name}", size)
        try:
            shm.set_shared_memory_region(region, [pixels])
            client.register_system_shared_memory(name, f"/{name}", size)
            try:
                tensor = self.module.InferInput("IMAGE", list(pixels.shape), "FP32")
                tensor.set_shared_memory(name, size)
                yield [tensor]
            finally:
                _patiently(lambda: client.unregister_system_shared_memory(name))
        finally:
            shm.destroy_shared_memory_region(region)


class Pending:
    """A request on its way."""

    def __init__(self, wire: Wire, pixels: Pixels, parameters: Mapping[str, Any]) -> None:
        self._wire, self._pixels, self._parameters = wire, pixels, parameters
        self._attempts = 0
        self._send()

    def _send(self) -> None:
        self._instance = self._wire.instance()
        self._end = time.monotonic() + self._wire.timeout
        self._future, self._cancel, self._free = self._wire._start(self._pixels, self._parameters)

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
        require_same_process(self._wire._forks, f"a request to {self._wire.url}")
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
            raise self._wire.translated(TimeoutError("timed out"))
        try:
            alive = self._wire.ping() == self._instance
        except DualSmoothError as error:
            self.cancel()
            raise ServerError(f"the request was lost: {error}") from error
        if not alive and not self._future.done():
            self.cancel()
            raise ServerError(f"{self._wire.url} was restarted, the request is lost; ask again")


class GrpcWire(Wire):
    def __init__(self, *arguments: Any) -> None:
        import tritonclient.grpc

        super().__init__(*arguments)
        self.module = tritonclient.grpc
        self._client = self.module.InferenceServerClient(self.address, channel_args=CHANNEL)

    def config(self) -> dict[str, Any]:
        config = self._client.get_model_config(self.model, as_json=True, client_timeout=min(30.0, self.timeout))
        return dict(config["config"].get("parameters", {}))

    def _infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        result = self._client.infer(
            self.model,
            self._inputs(pixels),
            parameters=dict(parameters),
            outputs=self._outputs(),
            client_timeout=timeout,
        )
        return self._tensors(result)

    def _start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
        future: Future[Tensors] = Future()
        held = contextlib.ExitStack()

        def done(result: Any, error: Any) -> None:
            try:
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(self._tensors(result))
            except Exception as failure:
                future.set_exception(failure)

        try:
            inputs = (
                held.enter_context(self._shared(self._client, pixels)) if self.shared_memory else self._inputs(pixels)
            )
            call = self._client.async_infer(
                self.model,
                inputs,
                done,
                parameters=dict(parameters),
                outputs=self._outputs(),
                client_timeout=self.timeout,
            )
        except Exception as error:
            held.close()
            raise self.translated(error) from error
        return future, call.cancel, held.close

    def stream(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Iterator[Tensors]:
        require_same_process(self._forks, f"the connection to {self.url}")
        answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        client = self.module.InferenceServerClient(self.address, channel_args=CHANNEL)
        try:
            client.start_stream(lambda result, error: answers.put((result, error)), stream_timeout=self.timeout)
            client.async_stream_infer(
                f"{self.model}_stream", self._inputs(pixels), parameters=dict(parameters), outputs=self._outputs()
            )
            final = False
            while not final:
                result, error = answers.get()
                if error is not None:
                    raise self.translated(error)
                final = bool(result.get_response().parameters["triton_final_response"].bool_param)
                yield self._tensors(result)
        finally:
            client.stop_stream(cancel_requests=True)
            client.close()

    def close(self) -> None:
        self._client.close()


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

    def config(self) -> dict[str, Any]:
        return dict(self._client(self.timeout).get_model_config(self.model).get("parameters", {}))

    def _infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        client = self._client(timeout)
        with contextlib.ExitStack() as held:
            small = not self.shared_memory or parameters.get("mode") == PING
            inputs = self._inputs(pixels) if small else held.enter_context(self._shared(client, pixels))
            return self._tensors(client.infer(self.model, inputs, parameters=dict(parameters), outputs=self._outputs()))

    def _start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
        future = self._pool.submit(self._infer, pixels, parameters, self.timeout)
        return future, future.cancel, lambda: None

    def stream(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Iterator[Tensors]:
        raise InputError(f"{self.url} streams over gRPC only; connect to grpc://host:8001")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._local.__dict__.values():
            client.close()


def text_of(tensors: Tensors) -> str:
    """The JSON text in the output `CERTIFICATE`. Raises `ServerError`."""
    try:
        return tensors["CERTIFICATE"].tobytes().decode()
    except (AttributeError, KeyError, UnicodeDecodeError) as error:
        raise ServerError(f"the server answered without a CERTIFICATE of text ({one_line(error)})") from error


def number_in(tensors: Tensors, name: str) -> float:
    """The first value of an output. Raises `ServerError`."""
    try:
        return float(np.ravel(tensors[name])[0])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the server answered without a number as {name} ({one_line(error)})") from error


def _patiently(release: Callable[[], object], seconds: float = 5.0) -> None:
    """Shared memory is in use until the server has let go of the request, a moment after its answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            release()
        except Exception:
            if time.monotonic() > end:
                return
            time.sleep(0.01)
        else:
            return
