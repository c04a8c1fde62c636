"""What a classifier minimises: one objective a file, with its settings, its loss and its paper.

To add one: write its file, and its row here. A file is imported when its objective is asked for, since losses need
torch and the command line does not.
"""

from __future__ import annotations

from importlib import import_module

from dualsmooth.training.objectives.objective import Objective

OBJECTIVES = {
    "gaussian": "Gaussian",
    "consistency": "Consistency",
    "smoothadv": "SmoothAdv",
    "reweighted": "Reweighted",
    "catrs": "CatRS",
    "macer": "Macer",
    "smoothmix": "SmoothMix",
}
"""Each objective's name, in the configuration and of its file here, and its class."""

__all__ = ["OBJECTIVES", "Objective", "objective_class"]


def objective_class(name: str) -> type[Objective]:
    """The class of the objective `name`, one of `OBJECTIVES`."""
    found: type[Objective] = getattr(import_module(f"{__name__}.{name}"), OBJECTIVES[name])
    return found
