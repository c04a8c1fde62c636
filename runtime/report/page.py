"""The report: one HTML page that holds its data, style and code, and asks the network for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy import special

from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import COVERED_LEGEND, ORACLE_LEGEND
from dualsmooth.runtime.report.bands import LEVEL, all_bands
from dualsmooth.runtime.report.curves import Curve, colours
from dualsmooth.runtime.report.embedding import embedded, part
from dualsmooth.runtime.report.pictures import picture_data
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.drawing import colours_css
from dualsmooth.runtime.statistics.accuracy import RADII
from dualsmooth.runtime.statistics.rules import DEFAULT, RULES
from dualsmooth.runtime.statistics.rules.rule import Legend
from dualsmooth.runtime.statistics.votes import ESTIMATION, ESTIMATOR, SELECTION

ROOM = "dualsmooth.runtime.report"
SCRIPTS = ("elements.js", "base.js", "curves.js", "inside.js", "images.js", "detail.js", "start.js")
TOP = 5
"""How many of the most voted classes of a stream the page shows."""


def html_report(
    curves: Sequence[Curve],
    at: Sequence[float] = RADII,
    *,
    title: str = "Certified accuracy",
    dataset: Dataset | None = None,
    classes: Sequence[str] = (),
) -> str:
    """The page about `curves`, with tables at the radii `at`. With `dataset` it shows the images, each checked against
    its certificate; `classes` are the names of the classes (default: the data set's). Raises `InputError`.

    Whatever comes from a file is data, never markup: it is embedded as JSON that cannot end its element, and a content
    security policy lets only the page's own code run and nothing be fetched.
    """
    data: dict[str, Any] = {
        "title": title,
        "at": list(at),
        "level": LEVEL,
        "classes": list(classes or (_class_names(dataset, curves) if dataset else ())),
        "legends": [{"name": x.name, "meaning": x.meaning, "dashed": x.dashed} for x in _legends(curves)],
        "lead": _lead(curves),
        "runs": [_run(curve, colour) for curve, colour in zip(curves, colours(curves), strict=True)],
        "votes": {curve.source: _all_votes(curve) for curve in reversed(curves) if curve.results},
        "pictures": picture_data(dataset, [r for curve in curves for r in curve.results]) if dataset else None,
    }
    style, script = colours_css() + part(ROOM, "report.css"), "".join(part(ROOM, name) for name in SCRIPTS)
    return embedded(part(ROOM, "report.html"), style=style, script=script, data=data)


def _legends(curves: Sequence[Curve]) -> list[Legend]:
    """The legends of all curves, each once, in the order of the table of rules."""
    shown = {curve.legend for curve in curves if curve.legend}
    return [
        legend
        for legend in (*(rule.legend for rule in RULES.values()), COVERED_LEGEND, ORACLE_LEGEND)
        if legend in shown
    ]


def _lead(curves: Sequence[Curve]) -> int:
    """Which curve the key figures are about: the first of the default rule, else the first that is no mere limit."""
    best = [i for i, curve in enumerate(curves) if curve.results and curve.legend == RULES[DEFAULT].legend]
    return next(iter([*best, *(i for i, curve in enumerate(curves) if curve.results or curve.log), 0]))


def _class_names(dataset: Dataset, curves: Sequence[Curve]) -> list[str]:
    """The names of the classes by their numbers in the results, which count the bundle's classes, not the data set's.

    Raises `InputError` where the data set is not that of the evaluation.
    """
    if not dataset.classes:
        return []
    named: dict[int, str] = {}
    for curve in [curve for curve in curves if curve.results] or curves:
        for index, truth in zip(curve.index.tolist(), curve.truth.tolist(), strict=True):
            if index < len(dataset):
                name = dataset.classes[dataset.labels[index]]
                if named.setdefault(truth, name) != name:
                    raise InputError(
                        f"{curve.source}: image {index} is of class {truth}, as others that are {named[truth]!r}, and "
                        f"{name!r} in {dataset.name}; pass the data set and split of the evaluation"
                    )
    if all(truth < len(dataset.classes) and dataset.classes[truth] == name for truth, name in named.items()):
        return list(dataset.classes)
    return [named.get(number, f"class {number}") for number in range(max(named) + 1)]


def _run(curve: Curve, colour: int) -> dict[str, Any]:
    low, high = all_bands(len(curve.radii))
    certificates = [r.certificate for r in curve.results]
    data: dict[str, Any] = {
        "name": curve.name,
        "source": curve.source,
        "colour": colour,
        "dashed": curve.dashed,
        "legend": curve.legend is not None,
        "facts": list(curve.facts.items()),
        "decided": None if curve.decided is None else list(curve.decided),
        "index": curve.index.tolist(),
        "truth": curve.truth.tolist(),
        "good": [r if r > 1e-6 else (1e-9 if r > 0 else -1) for r in curve.radii.tolist()],
        "low": [round(float(v), 5) for v in low],
        "high": [round(float(v), 5) for v in high],
    }
    if curve.log:
        data["label"] = [-1 if row.label is None else row.label for row in curve.log]
        data["radius"] = [row.radius for row in curve.log]
        data["seconds"] = [_finite(row.seconds) for row in curve.log]
    if certificates:
        first = certificates[0]
        data |= {
            "sigmas": list(first.terms.sigmas),
            "alpha": first.alpha,
            "oneLevel": first.terms.rule.only_level(first.terms),
            "reading": first.terms.rule.legend.reading,
            "label": [-1 if c.label is None else c.label for c in certificates],
            "answer": [list(c.answer) if len(c.answer) > 1 else None for c in certificates],
            "group": [c.group for c in certificates],
            "covered": curve.legend == COVERED_LEGEND,
            "guess": [c.outcome.guess for c in certificates],
            "radius": [c.radius for c in certificates],
            "seconds": [r.seconds for r in curve.results],
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
        spent[0 if stream.stage == ESTIMATOR else 1 + stream.level] += certificate.tally.passes(stream)
    return spent


def _all_votes(curve: Curve) -> dict[str, dict[str, Any]]:
    """Image to stream to `[passes, [[class, votes], ...]]`, the most voted classes only; bounded votes where there are
    any, else those of the selection."""
    votes: dict[str, dict[str, Any]] = {}
    for result in curve.results:
        tally = result.certificate.tally
        mine: dict[str, Any] = {}
        for purpose in (SELECTION, ESTIMATION):
            for stream in tally.looks:
                if stream.purpose == purpose:
                    counts = tally.counts(stream)
                    top = sorted(range(len(counts)), key=lambda c: -counts[c])[:TOP]
                    name = "route" if stream.stage == ESTIMATOR else str(stream.level)
                    mine[name] = [int(counts.sum()), [[c, int(counts[c])] for c in top if counts[c]], purpose]
        votes[str(result.index)] = mine
    return votes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
