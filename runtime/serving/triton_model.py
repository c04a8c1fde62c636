"""What the Triton model is made of, apart from Triton: options, start-up checks, the two engines, output tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.engine.engine import Engine, warm_up
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import parse_options, provider_of
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import BundleError, EngineError, InputError, one_line
from dualsmooth.runtime.noise.selftest import require_sound
from dualsmooth.runtime.noise.streams import Noise
from dualsmooth.runtime.serving.bls_engine import BlsEngine, Call
from dualsmooth.runtime.serving.service import Answer, Limits
from dualsmooth.runtime.smoothing.smoother import Smoother

IN_PROCESS, BLS = "in-process", "bls"
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


@dataclass(frozen=True)
class ServerOptions:
    """The string parameters of a model configuration."""

    engine: str
    provider: Provider
    threads: int
    batch_size: int
    manifest: str
    limits: Limits

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> ServerOptions:
        """From Triton's model configuration. Raises `InputError`."""
        given = {name: str(entry.get("string_value", "")) for name, entry in config.get("parameters", {}).items()}

        def number(name: str, low: int, high: int) -> int:
            text = given.get(name, "")
            if not (text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
                raise InputError(f"config parameter {name} is {text[:40]!r}; expected {low} to {high}")
            return int(text)

        if given.get("engine") not in (IN_PROCESS, BLS):
            raise InputError(f"config parameter engine is {given.get('engine')!r}; expected {IN_PROCESS} or {BLS}")
        if "manifest" not in given:
            raise InputError("config parameter manifest is missing; fill the repository with `dualsmooth triton`")
        tuned = parse_options([text for text in given.get("provider_options", "").split(";") if text.strip()])
        return cls(
            engine=given["engine"],
            provider=provider_of(given.get("provider", "cpu"), tuned),
            threads=number("threads", 0, 1024),
            batch_size=number("batch_size", 1, 65536),
            manifest=given["manifest"],
            limits=Limits.from_parameters(given),
        )


def read_parameters(text: str) -> dict[str, Any]:
    """The parameters of a request. Raises `InputError`."""
    try:
        given = strict_json.loads(text)
    except ValueError as error:
        raise InputError(f"request parameters are not JSON ({one_line(error)}); expected an object") from error
    if not isinstance(given, dict):
        raise InputError(f"request parameters are {type(given).__name__}; expected a JSON object")
    return given


def check_tensors(round_trip: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    """Tensors must come back bit by bit: the 24.10 stub silently gives zeros under NumPy 2. Raises `EngineError`."""
    floats = np.random.Generator(np.random.SFC64(1)).standard_normal((3, 5, 7), np.float32)
    for array in (floats, np.arange(1, 9, dtype=np.float64), np.arange(1, 9, dtype=np.int64)):
        try:
            back = round_trip(array)
        except Exception as error:
            raise EngineError(f"tensors cannot be passed through Triton's Python stub ({one_line(error)})") from error
        if back.dtype != array.dtype or back.shape != array.shape or back.tobytes() != array.tobytes():
            raise EngineError(
                f"tensors do not survive Triton's Python stub (NumPy {np.__version__}): {array.dtype} values came back "
                "changed; give the stub an environment with numpy<2, or use Triton 24.11 or later"
            )


def open_smoother(version: Path, options: ServerOptions, call: Call) -> Smoother:
    """The smoother of the bundle in `version` / bundle, after all start-up checks.

    Raises `DualSmoothError`: `BundleError` where files are not what the manifest says, `ProviderError`, `EngineError`.
    """
    require_sound(Noise())
    bundle = read_bundle(version / "bundle")
    if (version / "bundle" / "manifest.json").read_text(encoding="utf-8") != options.manifest:
        raise BundleError(
            f"config parameter manifest is not {version / 'bundle' / 'manifest.json'}; fill the repository again with "
            "`dualsmooth triton`"
        )
    if options.engine == BLS:
        engine: Engine = BlsEngine(bundle, version.parents[1], call)
    else:
        engine = OnnxEngine(bundle, options.provider, threads=options.threads, batch_size=options.batch_size)
    smoother = Smoother(bundle, engine, batch_size=options.batch_size)
    if options.engine == IN_PROCESS:  # Triton's own models may still be loading
        for _ in warm_up(bundle, engine, options.batch_size):
            pass
    return smoother


def outputs(answer: Answer | None, instance: str = "") -> dict[str, npt.NDArray[Any]]:
    """The output tensors of an answer; label -1 where it abstained. None answers a ping with the process's identity."""
    label = -1 if answer is None or answer.label is None else answer.label
    text = json.dumps({"instance": instance}) if answer is None else answer.to_json()
    return {
        "LABEL": np.array([label], np.int64),
        "RADIUS": np.array([getattr(answer, "radius", 0.0)], np.float64),
        "SIGMA": np.array([0.0 if answer is None else answer.sigma], np.float64),
        "ABSTAINED": np.array([answer is None or answer.abstained], np.bool_),
        "CERTIFICATE": np.frombuffer(text.encode(), np.uint8),
    }
