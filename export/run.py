"""A finished training run to a bundle, with the whole story of how it was made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dualsmooth.export.beside import beside
from dualsmooth.export.bundle import export_bundle
from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.training.config import read_toml
from dualsmooth.training.run.record import CONFIG, code_version, load_run, now


def _created() -> str:
    """The time for the provenance, in UTC; SOURCE_DATE_EPOCH (seconds) sets it, so that exports can be reproduced."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isascii() and epoch.isdecimal() and len(epoch) < 12:
        return datetime.fromtimestamp(int(epoch), UTC).isoformat(timespec="seconds")
    return now()


def made_by(command: str) -> dict[str, Any]:
    """For the provenance of an export: the command, its time, and the commit of the code where that is known."""
    return {"command": command, "created": _created(), **code_version()}


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    command: str = "dualsmooth.export.export_run",
    others: Sequence[str | Path] = (),
    **settings: Any,
) -> Bundle:
    """Export the run directory `run` as the bundle `out`; `settings` (precision, …) as for `export_bundle`. A run on
    photos of any size makes a bundle that takes them too, resized as they were in training, unless `resize` says else.
    The classifiers of `others` vote beside its own, as `beside` takes them; its metrics, which are of its own alone,
    are then left out.

    The manifest's provenance holds both commands, seed, configuration, data set, metrics, versions and git commits.
    Raises `InputError` where the run is missing, unfinished or damaged, or `out` is taken; `BundleError` where the
    exported networks are not those that were trained.
    """
    trained = load_run(run)
    classifiers, voices = beside(trained, trained.classifiers, others)
    record = trained.record
    provenance: dict[str, Any] = {
        "dataset": record.get("dataset"),
        "seed": record.get("seed"),
        "training": record.get("sessions"),
        **({"borrowed": record["borrowed"]} if "borrowed" in record else {}),
        "config": read_toml(trained.path / CONFIG),
        **({} if others else {"metrics": record.get("metrics")}),
        "checkpoints": record.get("checkpoints"),
        **voices,
        "export": made_by(command),
    }
    settings.setdefault("resize", record.get("resize"))
    return export_bundle(
        out,
        estimator=trained.estimator,
        classifiers=classifiers,
        sigmas=trained.sigmas,
        sigma_e=trained.sigma_e,
        classes=trained.classes,
        input_shape=trained.input_shape,
        provenance=provenance,
        **settings,
    )
