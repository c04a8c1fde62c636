"""Export (needs torch and onnx): turns trained networks into a bundle, the contract with the runtime.

`export_run("run/", "bundle/")` exports a training run; `export_bundle("bundle/", estimator=..., ...)` any modules and
ONNX files; `load_checkpoint("weights.pth", module)` fills a module with a checkpoint as the field saves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualsmooth.export.bundle import export_bundle
    from dualsmooth.export.checks.agreement import Pictures
    from dualsmooth.export.members import Ensemble
    from dualsmooth.export.onnx.graph import to_onnx
    from dualsmooth.export.run import export_run
    from dualsmooth.training.networks.published import load_checkpoint

__all__ = ["Ensemble", "Pictures", "export_bundle", "export_run", "load_checkpoint", "to_onnx"]

_HOME = {
    "Ensemble": "export.members",
    "Pictures": "export.checks.agreement",
    "export_bundle": "export.bundle",
    "export_run": "export.run",
    "load_checkpoint": "training.networks.published",
    "to_onnx": "export.onnx.graph",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that the command line lists `export` without it."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"dualsmooth.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
