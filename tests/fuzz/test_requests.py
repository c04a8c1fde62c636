"""Triton requests, through the model that Triton runs, with a stand-in for Triton's own module."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import toys
from fuzz.harness import SECONDS, clear, fuzz
from fuzz.mutations import NUMBERS, TEXTS, VALUES
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.serving.repository import fill_repository

LIMITS = {"max_passes": "1000", "max_seconds": "30", "max_image_values": "16", "max_open": "4", "max_waiting": "4"}
CODES = ("INTERNAL", "INVALID_ARG", "UNAVAILABLE", "CANCELLED")


def stand_in() -> ModuleType:
    """What the model uses of `triton_python_backend_utils`."""
    pb = ModuleType("triton_python_backend_utils")

    class Tensor:
        def __init__(self, name: str, values: Any) -> None:
            self.name, self.values = name, np.array(values)

        def as_numpy(self) -> Any:
            return self.values

        def to_dlpack(self) -> Any:
            return self

        @classmethod
        def from_dlpack(cls, name: str, other: Any) -> Any:
            return cls(name, other.values)

    class TritonError(Exception):
        INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = CODES

        def __init__(self, message: str, code: str = "INTERNAL") -> None:
            self.message, self.code = message, code

    class InferenceResponse:
        def __init__(self, tensors: Any = (), error: Any = None) -> None:
            self.tensors, self.error = {t.name: t.values for t in tensors}, error

    class Metric:
        COUNTER = GAUGE = 0

        def __init__(self, **_: Any) -> None: ...
        def Metric(self, **_: Any) -> Any:
            return self

        def increment(self, _: float) -> None: ...
        def set(self, _: float) -> None: ...

    for name, value in {
        "TRITONSERVER_RESPONSE_COMPLETE_FINAL": 1,
        "Tensor": Tensor,
        "TritonError": TritonError,
        "MetricFamily": Metric,
        "InferenceResponse": InferenceResponse,
        "TritonModelException": RuntimeError,
        "Logger": type("L", (), {"log_info": print}),
        "using_decoupled_model_transaction_policy": lambda config: bool(config.get("decoupled")),
        "get_input_tensor_by_name": lambda request, name: request.inputs.get(name),
    }.items():
        setattr(pb, name, value)
    return pb


class Request:
    """One request, and the way back."""

    def __init__(self, image: Any, parameters: str) -> None:
        self.inputs = {"IMAGE": sys.modules["triton_python_backend_utils"].Tensor("IMAGE", image)}
        self.text, self.answers, self.done = parameters, list[Any](), threading.Event()

    def parameters(self) -> str:
        return self.text

    def get_response_sender(self) -> Any:
        return self

    def is_cancelled(self) -> bool:
        return False

    def send(self, response: Any, flags: int) -> None:
        self.answers.append(response)
        if flags:
            assert not self.done.is_set()
            self.done.set()


class Real:
    models: list[Any]
    smoother: ds.Smoother


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> Any:
    path = toys.two_levels(folder / "b", estimator_cut=0.6, classifier_cuts=(0.2, 0.25))
    fill_repository(path, folder / "repository", threads=1, batch_size=64, allow_seed=True)
    before = sys.modules.get("triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = stand_in()
    Real.models, Real.smoother = [], ds.load(path, threads=1)
    for decoupled in (False, True):
        version = folder / "repository" / "dual_smoothing"
        spec = importlib.util.spec_from_file_location("served", version / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        given = {"engine": "in-process", "threads": "1", "batch_size": "64", **LIMITS}
        given["manifest"] = (path / "manifest.json").read_text()
        parameters = {name: {"string_value": value} for name, value in given.items()}
        config = json.dumps({"parameters": parameters, "decoupled": decoupled})
        model.initialize(
            {"model_config": config, "model_repository": str(version), "model_version": "1", "model_name": "m"}
        )
        Real.models.append(model)
    yield
    for model in Real.models:
        model.finalize()
    if before is None:
        del sys.modules["triton_python_backend_utils"]


BUDGETS = st.sampled_from(
    ["fixed:50:5", "fixed:400:5", "adaptive:200:0.1:9", "at-radius:0.1:200:9", "at-radii:0,0.1:90:9", "fixed:0"]
)
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "mode": st.sampled_from(["certify", "predict", "ping", "guess"]),
    "alpha": st.floats(0, 0.2),
    "budget": BUDGETS,
    "rule": st.sampled_from(["interval", "paper", "multiscale", "confidence:0.6", "fallback:0.6", "single:0.5"]),
    "route": st.sampled_from(["median", "mode"]),
    "seed": st.one_of(st.integers(0, 1 << 63), st.integers(0, 1 << 130).map(str)),
    "index": st.integers(0, 99),
    "all_levels": st.booleans(),
    "n": st.integers(0, 300),
    "noise": st.sampled_from(["auto", "float", "lattice", "table", "odd"]),
}


@st.composite
def parameters(draw: st.DrawFn) -> str:
    """Mostly right ones with a small budget; one of them may be anything."""
    names = draw(st.lists(st.sampled_from(sorted(USUAL)), max_size=4, unique=True))
    given = {name: draw(USUAL[name]) for name in names}
    given.setdefault(
        "n" if given.get("mode") == "predict" else "budget", 40 if given.get("mode") == "predict" else "fixed:40:5"
    )
    if draw(st.integers(0, 2)) == 0:
        given[draw(st.one_of(st.sampled_from(sorted(USUAL)), TEXTS))] = draw(st.one_of(NUMBERS, TEXTS, VALUES))
    return (
        json.dumps(given)
        if draw(st.integers(0, 30))
        else draw(st.sampled_from(["", "null", "[]", "{", '{"alpha": 1e999}']))
    )


UNIT = st.floats(0, 1, width=32)
IMAGES = st.one_of(
    *[st.builds(toys.image, UNIT, UNIT)] * 4,
    st.builds(toys.image, st.floats(width=32), UNIT),
    st.lists(st.integers(0, 4), max_size=4).map(lambda shape: np.full(shape, 0.5, np.float32)),
)


@fuzz("Triton requests", image=IMAGES, text=parameters(), stream=st.booleans())
def test_every_request_is_answered_once(image: Any, text: str, stream: bool) -> None:
    from fuzz.harness import Refused

    request = Request(image, text)
    Real.models[stream].execute([request])
    assert request.done.wait(SECONDS)
    *early, last = request.answers
    assert stream or not early
    if last.error is not None:
        clear(last.error.message)
        assert last.error.code == "INVALID_ARG"
        raise Refused
    for answer in request.answers:
        assert answer.error is None
        mode = json.loads(text).get("mode", "certify")
        if mode == "certify":
            made = ds.Certificate.from_json(answer.tensors["CERTIFICATE"].tobytes().decode())
            Real.smoother.verify(made)
            assert made.radius == answer.tensors["RADIUS"][0]
            assert made.alpha == json.loads(text).get("alpha", 1e-3)
