"""Results as columns, for NumPy and pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.evaluation import field_log as tsv
from dualsmooth.runtime.evaluation.results import load_results

Columns = dict[str, npt.NDArray[Any]]


def read_results(path: str | Path) -> Columns:
    """A results file, or a log of the field, as columns of equal length: `pandas.DataFrame(ds.read_results(path))`.

    One entry an image. From both: `index`, `true_label`, `label` (-1: abstained), `abstained`, `correct`, `radius`
    (L2, input units), `seconds` (NaN: unknown). From certificates, each recomputed from its counts, also `sigma`,
    `route_radius` (infinite: no other level), `class_radius`, `passes`, `alpha`, `rule`, `budget`, `dataset`, `group`
    (the name of the group that answers in place of a label, else ""; `label` is -1 then) and `covered` (whether the
    answer, label or group, holds the true class). Raises `InputError`, with the line.

    >>> columns = read_results("docs/results/fashion-mnist-all-levels.jsonl")
    >>> len(columns["radius"]), sorted(set(columns["sigma"].tolist()))
    (500, [0.5, 1.0])
    >>> certified = columns["correct"] & (columns["radius"] >= 0.5)
    """
    if tsv.is_log(path):
        log = tsv.read_log(path)
        return _common(
            [(r.index, r.true_label, -1 if r.label is None else r.label, r.correct, r.radius, r.seconds) for r in log]
        )
    found = load_results(path)
    certificates = [r.certificate for r in found]
    columns = _common(
        [
            (r.index, r.true_label, -1 if c.label is None else c.label, c.label == r.true_label, c.radius, r.seconds)
            for r, c in zip(found, certificates, strict=True)
        ]
    )
    for name in ("sigma", "route_radius", "class_radius", "passes", "alpha"):
        columns[name] = np.array([getattr(c, name) for c in certificates])
    columns["abstained"] = np.array([c.abstained for c in certificates])
    columns["group"] = np.array([c.group or "" for c in certificates])
    columns["covered"] = np.array([r.true_label in r.certificate.answer for r in found])
    columns["rule"] = np.array([str(c.terms.rule) for c in certificates])
    columns["budget"] = np.array([str(c.terms.budget) for c in certificates])
    columns["dataset"] = np.array([r.dataset for r in found])
    return columns


def _common(rows: list[tuple[int, int, int, bool, float, float]]) -> Columns:
    index, truth, label, correct, radius, seconds = zip(*rows, strict=True)
    labels = np.array(label, np.int64)
    return {
        "index": np.array(index, np.int64),
        "true_label": np.array(truth, np.int64),
        "label": labels,
        "abstained": labels < 0,
        "correct": np.array(correct, bool),
        "radius": np.array(radius, np.float64),
        "seconds": np.array(seconds, np.float64),
    }
