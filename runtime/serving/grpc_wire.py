"""The wire over gRPC: requests can be cancelled, and answers stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from dualsmooth.runtime.noise.forks import require_same_process
from dualsmooth.runtime.serving.protocol import STREAM
from dualsmooth.runtime.serving.tensors import Tensors, tensors_of
from dualsmooth.runtime.serving.wire import Pixels, Sending, Wire

CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
"""A server that comes back is found within a second."""


class GrpcWire(Wire):
    def __init__(self, *arguments: Any) -> None:
        import tritonclient.grpc

        super().__init__(*arguments)
        self.module = tritonclient.grpc
        self._client = self.module.InferenceServerClient(self.address, channel_args=CHANNEL)

    def read_config(self, timeout: float) -> dict[str, Any]:
        answer = self._client.get_model_config(self.model, as_json=True, client_timeout=timeout)
        return dict(answer["config"])

    def infer(self, pixels: Pixels, parameters: Mapping[str, Any], timeout: float) -> Tensors:
        result = self._client.infer(
            self.model,
            self.inputs(pixels),
            parameters=dict(parameters),
            outputs=self.outputs(),
            client_timeout=timeout,
        )
        return tensors_of(result)

    def start(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Sending:
        future: Future[Tensors] = Future()
        held = contextlib.ExitStack()

        def done(result: Any, error: Any) -> None:
            try:
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(tensors_of(result))
            except Exception as failure:
                future.set_exception(failure)

        try:
            inputs = self.held_inputs(self._client, pixels, held)
            call = self._client.async_infer(
                self.model,
                inputs,
                done,
                parameters=dict(parameters),
                outputs=self.outputs(),
                client_timeout=self.timeout,
            )
        except Exception as error:
            held.close()
            raise self.translated(error) from error
        return future, call.cancel, held.close

    def stream(self, pixels: Pixels, parameters: Mapping[str, Any]) -> Iterator[Tensors]:
        require_same_process(self.begun_at, f"the connection to {self.url}")
        answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        client = self.module.InferenceServerClient(self.address, channel_args=CHANNEL)
        try:
            client.start_stream(lambda result, error: answers.put((result, error)), stream_timeout=self.timeout)
            client.async_stream_infer(
                self.model + STREAM, self.inputs(pixels), parameters=dict(parameters), outputs=self.outputs()
            )
            final = False
            while not final:
                result, error = answers.get()
                if error is not None:
                    raise self.translated(error)
                final = bool(result.get_response().parameters["triton_final_response"].bool_param)
                yield tensors_of(result)
        finally:
            client.stop_stream(cancel_requests=True)
            client.close()

    def close(self) -> None:
        self._client.close()
