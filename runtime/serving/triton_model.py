"""What the Triton model is made of, apart from Triton: options, start-up checks, the two engines, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.engine.engine import Engine, warm_up
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import parse_options, provider_of
from dualsmooth.runtime.engine.providers.provider import Provider
from dualsmooth.runtime.errors import BundleError, EngineError, InputError, one_line
from dualsmooth.runtime.noise.add import FLOAT, TABLE
from dualsmooth.runtime.noise.selftest import require_sound
from dualsmooth.runtime.noise.streams import Noise
from dualsmooth.runtime.serving.bls_engine import BlsEngine, Call
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.protocol import BLS, IN_PROCESS, MANIFEST, PLACEMENT, PLACEMENTS
from dualsmooth.runtime.smoothing.smoother import Smoother


@dataclass(frozen=True)
class ServerOptions:
    """The string parameters of a model configuration."""

    placement: str
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

        placement = given.get(PLACEMENT)
        if placement not in PLACEMENTS:
            raise InputError(f"config parameter {PLACEMENT} is {placement!r}; expected {' or '.join(PLACEMENTS)}")
        if MANIFEST not in given:
            raise InputError("config parameter manifest is missing; fill the repository with `dualsmooth triton`")
        tuned = parse_options([text for text in given.get("provider_options", "").split(";") if text.strip()])
        return cls(
            placement=placement,
            provider=provider_of(given.get("provider", "cpu"), tuned),
            threads=number("threads", 0, 1024),
            batch_size=number("batch_size", 1, 65536),
            manifest=given[MANIFEST],
            limits=Limits.from_parameters(given),
        )


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
    for mode in (FLOAT, TABLE):  # what `auto` stands for
        require_sound(Noise(mode))
    bundle = read_bundle(version / "bundle")
    if (version / "bundle" / "manifest.json").read_text(encoding="utf-8") != options.manifest:
        raise BundleError(
            f"config parameter manifest is not {version / 'bundle' / 'manifest.json'}; fill the repository again with "
            "`dualsmooth triton`"
        )
    if options.placement == BLS:
        engine: Engine = BlsEngine(bundle, version.parents[1], call)
    else:
        engine = OnnxEngine(bundle, options.provider, threads=options.threads, batch_size=options.batch_size)
    smoother = Smoother(bundle, engine, batch_size=options.batch_size)
    if options.placement == IN_PROCESS:  # Triton's own models may still be loading
        for _ in warm_up(bundle, engine, options.batch_size):
            pass
    return smoother
