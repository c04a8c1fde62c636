"""Export (needs torch and onnx): turns trained networks into a bundle, the contract with the runtime.

`export_run("run/", "bundle/")` exports a training run; `export_bundle("bundle/", estimator=..., ...)` any modules and
ONNX files; `export_file("model.onnx", "bundle/", ...)` one ONNX file to a bundle of one noise level;
`export_smoothed(theirs, "bundle/")` Cohen's `Smooth`, or an estimator of ART's;
`load_checkpoint("weights.pth", module)` fills a module with a checkpoint as the field saves it.

>>> import tempfile
>>> from torch import nn
>>> from dualsmooth.export import export_bundle
>>> def network(outputs):  # yours, trained under noise
...     return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))
>>> with tempfile.TemporaryDirectory() as folder:
...     bundle = export_bundle(
...         f"{folder}/bundle",
...         estimator=network(2),
...         classifiers=[network(10), network(10)],
...         sigmas=(0.25, 0.5),
...         sigma_e=0.5,
...         classes="0 1 2 3 4 5 6 7 8 9".split(),
...         input_shape=(1, 28, 28),
...     )
>>> sorted(bundle.files)
['classifier_0.25.onnx', 'classifier_0.5.onnx', 'estimator.onnx']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualsmooth.export.adapters import export_smoothed
    from dualsmooth.export.bundle import export_bundle
    from dualsmooth.export.checks.agreement import Pictures
    from dualsmooth.export.members import Ensemble
    from dualsmooth.export.one_file import export_file
    from dualsmooth.export.onnx.graph import to_onnx
    from dualsmooth.export.run import export_run
    from dualsmooth.training.networks.published import load_checkpoint

__all__ = [
    "Ensemble",
    "Pictures",
    "export_bundle",
    "export_file",
    "export_run",
    "export_smoothed",
    "load_checkpoint",
    "to_onnx",
]

_HOME = {
    "Ensemble": "export.members",
    "Pictures": "export.checks.agreement",
    "export_bundle": "export.bundle",
    "export_file": "export.one_file",
    "export_run": "export.run",
    "export_smoothed": "export.adapters",
    "load_checkpoint": "training.networks.published",
    "to_onnx": "export.onnx.graph",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that the command line lists `export` without it."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"dualsmooth.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
