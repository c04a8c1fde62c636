"""Execution providers: one file each, and their table.

ONNX Runtime falls back to the CPU silently; here a provider that was asked for and does not run is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.providers.cuda import Cuda
from dualsmooth.runtime.engine.providers.openvino import OpenVino
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.engine.providers.tensorrt import TensorRT
from dualsmooth.runtime.errors import InputError

PROVIDERS: dict[str, type[Provider]] = {made.name: made for made in (Cpu, Cuda, TensorRT, OpenVino)}
"""By the name that users and certificates give it."""


def provider_of(name: str, options: Mapping[str, Any] | None = None) -> Provider:
    """The provider of that name with `options`, values or text. Raises `InputError`."""
    if name not in PROVIDERS:
        raise InputError(f"provider {str(name)[:40]!r} is unknown; expected one of {', '.join(PROVIDERS)}")
    return PROVIDERS[name].read(options or {})


def parse_options(texts: list[str]) -> dict[str, str]:
    """`["arena=off", …]` as a dictionary. Raises `InputError`."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not (name and equals):
            raise InputError(f"--provider-option {text!r}; expected NAME=VALUE, e.g. arena=off")
    return {name: value for name, _, value in pairs}
