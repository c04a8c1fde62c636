"""Answers as output tensors, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import ServerError, one_line
from dualsmooth.runtime.serving.protocol import ABSTAINED, CERTIFICATE, INSTANCE, LABEL, OUTPUTS, RADIUS, SIGMA, TEXT
from dualsmooth.runtime.serving.replies import Answer

Tensors = dict[str, npt.NDArray[Any]]
"""By name."""


def outputs(answer: Answer | None, instance: str = "") -> Tensors:
    """The output tensors of an answer; label -1 where it abstained. None answers a ping with the process's identity."""
    label = -1 if answer is None or answer.label is None else answer.label
    text = json.dumps({INSTANCE: instance}) if answer is None else answer.to_json()
    return {
        LABEL: np.array([label], np.int64),
        RADIUS: np.array([getattr(answer, "radius", 0.0)], np.float64),
        SIGMA: np.array([0.0 if answer is None else answer.sigma], np.float64),
        ABSTAINED: np.array([answer is None or answer.abstained], np.bool_),
        CERTIFICATE: np.frombuffer(text.encode(), np.uint8),
        TEXT: np.array([text.encode()], np.object_),
    }


def tensors_of(result: Any) -> Tensors:
    """The outputs in an answer of the client library."""
    return {name: result.as_numpy(name) for name in OUTPUTS}


def text_of(tensors: Tensors) -> str:
    """The JSON text in the output `CERTIFICATE`. Raises `ServerError`."""
    try:
        return tensors[CERTIFICATE].tobytes().decode()
    except (AttributeError, KeyError, UnicodeDecodeError) as error:
        raise ServerError(f"the server answered without a CERTIFICATE of text ({one_line(error)})") from error


def number_in(tensors: Tensors, name: str) -> float:
    """The first value of an output. Raises `ServerError`."""
    try:
        return float(np.ravel(tensors[name])[0])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the server answered without a number as {name} ({one_line(error)})") from error
