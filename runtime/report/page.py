"""The report: one HTML page that holds its data, style and code, and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from scipy import special

from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import RADII
from dualsmooth.runtime.report.bands import LEVEL, all_bands
from dualsmooth.runtime.report.pictures import picture_data
from dualsmooth.runtime.report.runs import Run
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.statistics.votes import ESTIMATION, SELECTION

SCRIPTS = ("base.js", "curves.js", "inside.js", "images.js", "detail.js", "start.js")
TOP = 5
"""How many of the most voted classes of a stream the page shows."""


def html_report(
    runs: Sequence[Run],
    at: Sequence[float] = RADII,
    *,
    title: str = "Certified accuracy",
    dataset: Dataset | None = None,
    classes: Sequence[str] = (),
) -> str:
    """The page about `runs`, with tables at the radii `at`. With `dataset` it shows the images, each checked against
    its certificate; `classes` are the names of the classes (default: the data set's). Raises `InputError`.

    Whatever comes from a file is data, never markup: it is embedded as JSON that cannot end its element, and a content
    security policy lets only the page's own code run and nothing be fetched.
    """
    data: dict[str, Any] = {
        "title": title,
        "at": list(at),
        "level": LEVEL,
        "classes": list(classes or (_class_names(dataset, runs) if dataset else ())),
        "runs": [_run(run) for run in runs],
        "votes": {run.source: _all_votes(run) for run in reversed(runs) if run.results},
        "pictures": picture_data(dataset, [r for run in runs for r in run.results]) if dataset else None,
    }
    style, script = _part("report.css"), "".join(map(_part, SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _part("report.html")
    for name, text in (("POLICY", policy), ("STYLE", style), ("DATA", _inert_json(data)), ("SCRIPT", script)):
        head, tail = page.split(f"@{name}@")
        page = head + text + tail
    return page


def _class_names(dataset: Dataset, runs: Sequence[Run]) -> list[str]:
    """The names of the classes by their numbers in the results, which count the bundle's classes, not the data set's.

    Raises `InputError` where the data set is not that of the evaluation.
    """
    if not dataset.classes:
        return []
    named: dict[int, str] = {}
    for run in [run for run in runs if run.results] or runs:
        for index, truth in zip(run.index.tolist(), run.truth.tolist(), strict=True):
            if index < len(dataset):
                name = dataset.classes[dataset.labels[index]]
                if named.setdefault(truth, name) != name:
                    raise InputError(
                        f"{run.source}: image {index} is of class {truth}, as others that are {named[truth]!r}, and "
                        f"{name!r} in {dataset.name}; pass the data set and split of the evaluation"
                    )
    if all(truth < len(dataset.classes) and dataset.classes[truth] == name for truth, name in named.items()):
        return list(dataset.classes)
    return [named.get(number, f"class {number}") for number in range(max(named) + 1)]


def _part(name: str) -> str:
    return (files("dualsmooth.runtime.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert_json(data: Any) -> str:
    """JSON without a character that HTML could take for markup, nor the page's own placeholders."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&@\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _run(run: Run) -> dict[str, Any]:
    low, high = all_bands(len(run.radii))
    certificates = [r.certificate for r in run.results]
    data: dict[str, Any] = {
        "name": run.name,
        "source": run.source,
        "facts": list(run.facts.items()),
        "decided": None if run.decided is None else list(run.decided),
        "index": run.index.tolist(),
        "truth": run.truth.tolist(),
        "good": [r if r > 1e-6 else (1e-9 if r > 0 else -1) for r in run.radii.tolist()],
        "low": [round(float(v), 5) for v in low],
        "high": [round(float(v), 5) for v in high],
    }
    if run.log:
        data["label"] = [-1 if row.label is None else row.label for row in run.log]
        data["radius"] = [row.radius for row in run.log]
        data["seconds"] = [_finite(row.seconds) for row in run.log]
    if certificates:
        first = certificates[0]
        data |= {
            "sigmas": list(first.terms.sigmas),
            "alpha": first.alpha,
            "rule": first.terms.rule,
            "label": [-1 if c.label is None else c.label for c in certificates],
            "guess": [c.outcome.guess for c in certificates],
            "radius": [c.radius for c in certificates],
            "seconds": [r.seconds for r in run.results],
            "route": [c.outcome.route for c in certificates],
            "routeRadius": [_finite(c.route_radius) for c in certificates],
            "classRadius": [c.class_radius for c in certificates],
            "pA": [_p_lower(c) for c in certificates],
            "passes": [c.passes for c in certificates],
            "spent": [_spent(c) for c in certificates],
            "exclusion": [[_finite(e) for e in c.outcome.exclusion] for c in certificates],
            "classRadii": [list(c.outcome.class_radii) for c in certificates],
        }
    return data


def _p_lower(certificate: Certificate) -> float | None:
    """The bound on the label's probability behind the class radius; None where it is not above 1/2."""
    if certificate.class_radius <= 0:
        return None
    return math.floor(1e6 * float(special.ndtr(certificate.class_radius / certificate.sigma))) / 1e6


def _spent(certificate: Certificate) -> list[int]:
    """Passes of the estimator, then of the classifier at each level."""
    spent = [0] * (1 + len(certificate.terms.sigmas))
    for stream in certificate.tally.looks:
        spent[0 if stream.stage == "estimator" else 1 + stream.level] += certificate.tally.passes(stream)
    return spent


def _all_votes(run: Run) -> dict[str, dict[str, Any]]:
    """Image to stream to `[passes, [[class, votes], ...]]`, the most voted classes only; bounded votes where there are
    any, else those of the selection."""
    votes: dict[str, dict[str, Any]] = {}
    for result in run.results:
        tally = result.certificate.tally
        mine: dict[str, Any] = {}
        for purpose in (SELECTION, ESTIMATION):
            for stream in tally.looks:
                if stream.purpose == purpose:
                    counts = tally.counts(stream)
                    top = sorted(range(len(counts)), key=lambda c: -counts[c])[:TOP]
                    name = "route" if stream.stage == "estimator" else str(stream.level)
                    mine[name] = [int(counts.sum()), [[c, int(counts[c])] for c in top if counts[c]], purpose]
        votes[str(result.index)] = mine
    return votes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
