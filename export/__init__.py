"""Export (needs torch and onnx): turns trained networks into a bundle, the contract with the runtime.

`export_run("run/", "bundle/")` exports a training run; `export_bundle("bundle/", estimator=..., ...)` any modules and
ONNX files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualsmooth.export.agreement import Pictures
    from dualsmooth.export.bundle import Ensemble, export_bundle
    from dualsmooth.export.graph import to_onnx
    from dualsmooth.export.run import export_run

__all__ = ["Ensemble", "Pictures", "export_bundle", "export_run", "to_onnx"]

_HOME = {
    "Ensemble": "bundle",
    "Pictures": "agreement",
    "export_bundle": "bundle",
    "export_run": "run",
    "to_onnx": "graph",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that the command line lists `export` without it."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"dualsmooth.export.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
