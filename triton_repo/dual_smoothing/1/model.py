"""Triton's Python model: tensors in, the dualsmooth service, tensors out. All decisions are in `dualsmooth.runtime`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from dualsmooth.runtime.errors import DualSmoothError, EngineError, one_line
from dualsmooth.runtime.serving.metrics import METRICS
from dualsmooth.runtime.serving.protocol import CERTIFY, IMAGE, PICTURE, PING, refusal_of, to_line
from dualsmooth.runtime.serving.replies import Answer
from dualsmooth.runtime.serving.requests import image_of, read_parameters
from dualsmooth.runtime.serving.service import Service
from dualsmooth.runtime.serving.tensors import outputs
from dualsmooth.runtime.serving.triton_model import ServerOptions, check_tensors, open_smoother
from dualsmooth.runtime.smoothing.certificate import Certificate

FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
CANCEL_SECONDS = 0.02


class TritonPythonModel:
    """One bundle, one service; its thread answers through the response senders, so that requests of any age share
    batches and `execute` never blocks."""

    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        options = ServerOptions.read(config)
        self._instance = secrets.token_hex(8)
        self._stream = pb.using_decoupled_model_transaction_policy(config)
        try:
            check_tensors(_round_trip)
            version = Path(args["model_repository"]) / args["model_version"]
            smoother = open_smoother(version, options, _call)
            self._metrics = _metrics(args["model_name"], smoother.engine.provider, smoother.engine.name)
            self._service = Service(smoother, options.limits, observe=self._observe)
        except DualSmoothError as error:
            raise pb.TritonModelException(str(error)) from None
        pb.Logger.log_info(f"{args['model_name']}: {smoother.engine.name}, provider {smoother.engine.provider}, ready")

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = _Sender(request.get_response_sender(), stream=self._stream)
            try:
                parameters = read_parameters(request.parameters())
                if parameters.get("mode", CERTIFY) == PING:
                    self._service.check()
                    reply.send(_tensors(None, self._instance), FINAL)
                else:
                    bundle = self._service.smoother.bundle
                    image = image_of(_input(request, IMAGE), _input(request, PICTURE), bundle)
                    self._service.submit(image, parameters, reply)
            except DualSmoothError as error:
                self._service.counts.add("refusals", 1)
                reply.failed(error)
            except Exception as error:  # which must not take the other requests with it
                self._service.counts.add("refusals", 1)
                reply.failed(EngineError(f"the request could not be taken ({one_line(error)})"))

    def finalize(self) -> None:
        self._service.close(drain=0)  # Triton has waited already

    def _observe(self, name: str, value: float) -> None:
        self._metrics[name].increment(value)


class _Sender:
    """One request's way back to its client."""

    def __init__(self, sender: Any, *, stream: bool) -> None:
        self._sender, self.wants_progress, self._next = sender, stream, 0.0

    def send(self, response: Any, flags: int) -> None:
        self._sender.send(response, flags=flags)

    def answered(self, answer: Answer) -> None:
        self.send(_tensors(answer), FINAL)

    def progressed(self, answer: Certificate) -> None:
        self.send(_tensors(answer), 0)

    def failed(self, error: DualSmoothError) -> None:
        status = getattr(pb.TritonError, refusal_of(error).status)
        self.send(pb.InferenceResponse(error=pb.TritonError(to_line(error), status)), FINAL)

    def cancelled(self) -> bool:
        """Asks Triton at most every `CANCEL_SECONDS`, which is less than a batch of a real network takes."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + CANCEL_SECONDS
        return bool(self._sender.is_cancelled())


def _input(request: Any, name: str) -> Any:
    """An input as an array; None where the request has none of this name."""
    tensor = pb.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _tensors(answer: Answer | None, instance: str = "") -> Any:
    return pb.InferenceResponse([pb.Tensor(name, value) for name, value in outputs(answer, instance).items()])


def _round_trip(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    tensor = pb.Tensor("x", array)
    return np.asarray(pb.Tensor.from_dlpack("x", tensor.to_dlpack()).as_numpy())


def _call(model: str, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """One batch through another model of this server."""
    request = pb.InferenceRequest(
        model_name=model,
        requested_output_names=["logits"],
        inputs=[pb.Tensor(name, value) for name, value in inputs.items()],
    )
    response = request.exec()
    if response.has_error():
        raise RuntimeError(one_line(Exception(response.error().message())))
    return np.asarray(pb.get_output_tensor_by_name(response, "logits").as_numpy())


def _metrics(model: str, provider: str, engine: str) -> dict[str, Any]:
    """Counters of our own beside Triton's, at the metrics port; and which provider runs, as a gauge that is 1."""
    made = {}
    for name, help_text in METRICS.items():
        family = pb.MetricFamily(name=f"dualsmooth_{name}_total", description=help_text, kind=pb.MetricFamily.COUNTER)
        made[name] = family.Metric(labels={"model": model})
        made[f"{name} family"] = family
    family = pb.MetricFamily(
        name="dualsmooth_provider", description="What runs the networks", kind=pb.MetricFamily.GAUGE
    )
    made["provider"] = family.Metric(labels={"model": model, "provider": provider, "engine": engine})
    made["provider"].set(1)
    made["provider family"] = family
    return made
