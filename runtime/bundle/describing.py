"""What a bundle is: levels, files, hashes, provenance and the cost of a pass, from the files alone. Nothing is run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dualsmooth.runtime.bundle.reading import MANIFEST, BaseModel, Bundle, shipped_manifest
from dualsmooth.runtime.bundle.shipped import SHIPPED
from dualsmooth.runtime.errors import printable
from dualsmooth.runtime.graphs.model import TYPES, read_model
from dualsmooth.runtime.graphs.precision import precision_of
from dualsmooth.runtime.graphs.shapes import infer

Facts = dict[str, Any]


SAID_AT = (0.25, 0.5, 1.0)
"""Radii of the certified accuracy in the line on a bundle that ships."""


def bundles() -> dict[str, str]:
    """The bundles that ship: each name, as `load` takes it, with a line on classes, shape, noise levels and accuracy.

    >>> bundles()["fashion-mnist"].partition(";")[0]
    '10 classes (T-shirt/top, Trouser, Pullover, …), images 1x28x28, sigmas 0.25, 0.5, 1'
    """
    return {name: _line(shipped_manifest(name)) for name in SHIPPED}


def _line(bundle: Bundle) -> str:
    some = ", ".join(bundle.classes[:3]) + (", …" if len(bundle.classes) > 3 else "")
    line = bundle.summary.replace(" classes", f" classes ({some})", 1)
    metrics = bundle.provenance.get("metrics", {})
    found = dict(zip(metrics.get("radii", ()), metrics.get("certified_accuracy", {}).get("interval", ()), strict=False))
    if shares := [f"{found[r]:.1%} at r = {r:g}" for r in SAID_AT if r in found]:
        how = f"{metrics['images']} validation images, {metrics['votes']} votes, alpha {metrics['alpha']:g}"
        line += f"; certified accuracy {', '.join(shares)} ({how})"
    return printable(line)


def describe(bundle: Bundle) -> Facts:
    """A plain dictionary (JSON types only) about a checked bundle.

    `multiply_adds` are those of convolutions, matrix products and the like for one image, counted from the graph;
    `uncounted` names operators whose cost could not be told (the figure is then a lower bound).
    """
    files = {name: _file(bundle, name) for name in bundle.files}
    least = [{}, *({"sure": share} for share in bundle.sure)] if bundle.sure else [{}] * len(bundle.sigmas)
    levels = [
        {"sigma": sigma, **sure, **_model(model, files)}
        for sigma, sure, model in zip(bundle.sigmas, least, bundle.classifiers, strict=True)
    ]
    how = bundle.preprocessing
    unlisted = sorted(p.name for p in bundle.path.iterdir() if p.name not in {*bundle.files, MANIFEST})
    return {
        "path": str(bundle.path),
        "manifest_sha256": bundle.manifest_sha256,
        "input_shape": list(bundle.input_shape),
        "preprocessing": None if how is None else {**how.to_dict(), "words": how.words},
        "classes": list(bundle.classes),
        "groups": bundle.groups.to_dict() if bundle.groups else {},
        "precision": bundle.precision,
        "estimator": None if bundle.estimator is None else {"sigma": bundle.sigma_e, **_model(bundle.estimator, files)},
        "levels": levels,
        "bytes": sum(file["bytes"] for file in files.values()),
        "files": files,
        "unlisted": unlisted,
        "provenance": dict(bundle.provenance),
    }


def _file(bundle: Bundle, name: str) -> Facts:
    path = bundle.path / name
    facts: Facts = {"bytes": path.stat().st_size, "sha256": bundle.files[name]}
    if not name.endswith(".onnx"):
        return facts
    model = read_model(path)
    found = infer(model.graph, {"x": (1, *bundle.input_shape), "sigma": ()})
    weights: Counter[str] = Counter()
    for tensor in model.graph.constants.values():
        weights[TYPES[tensor.type][0]] += math.prod(tensor.dims)
    return {
        **facts,
        "opset": model.opsets[0][1],
        "nodes": sum(len(graph.nodes) for graph in model.graphs()),
        "takes_sigma": any(value.name == "sigma" for value in model.graph.inputs),
        "weights": dict(weights.most_common()),
        "precision": precision_of(model.graph),
        "multiply_adds": found.multiply_adds(),
        "uncounted": sorted(set(found.unknown)),
    }


def _model(model: BaseModel, files: dict[str, Facts]) -> Facts:
    costs = [files[name]["multiply_adds"] for name in model.members]
    least = sum(costs[: model.consensus or len(costs)])
    return {
        "members": list(model.members),
        **({"consensus": model.consensus, "least_multiply_adds": least} if model.consensus else {}),
        "multiply_adds": sum(costs),
        "uncounted": sorted({op for name in model.members for op in files[name]["uncounted"]}),
    }


def sentences(facts: Facts) -> str:
    """The same for people."""
    shape = "x".join(map(str, facts["input_shape"]))
    names = facts["classes"]
    some = ", ".join(f"{c} {' '.join(n.split())}" for c, n in enumerate(names[:20])) + (
        ", …" if len(names) > 20 else ""
    )
    lines = [
        f"{facts['path']}: a bundle, {facts['precision']}, {size(facts['bytes'])} in {len(facts['files'])} files",
        f"manifest   sha256 {facts['manifest_sha256']}",
        f"input      {shape} in [0, 1], unnormalised",
        f"pictures   {pictures(facts)}",
        f"classes    {len(names)}: {some}",
        *_groups(facts["groups"], names),
        _stage("estimator", facts["estimator"])
        if facts["estimator"]
        else "estimator  none: one noise level, no router",
        *(_stage("classifier", level) for level in facts["levels"]),
        "",
    ]
    width = max(map(len, facts["files"]))
    for name, file in facts["files"].items():
        more = ""
        if "nodes" in file:
            kinds = ", ".join(f"{size(n, '')} {kind}" for kind, n in file["weights"].items())
            more = f"{file['nodes']} nodes, opset {file['opset']}, {file['precision']}, {kinds}, "
            more += f"{cost(file['multiply_adds'], file['uncounted'])} a pass"
        lines.append(f"{name:<{width}}  {size(file['bytes']):>8}  {more}\n{'':<{width}}  sha256 {file['sha256']}")
    if facts["unlisted"]:
        lines += ["", f"not listed in the manifest, never read: {', '.join(facts['unlisted'][:8])}"]
    text = "\n".join([*lines, "", *_provenance(facts["provenance"])])
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)  # a bundle must not steer a terminal


def pictures(facts: Facts) -> str:
    """Which pictures the bundle takes."""
    how = facts["preprocessing"]
    return "of that size only" if how is None else f"of any size: {how['words']}; radii are about the result"


def _groups(groups: dict[str, list[int]], names: list[str]) -> list[str]:
    """A line for each of the first groups."""
    lines: list[str] = []
    for name, members in list(groups.items())[:8]:
        some = ", ".join(" ".join(names[c].split()) for c in members[:6]) + (", …" if len(members) > 6 else "")
        lines.append(f"{'' if lines else 'groups':<10} {name}: {some}")
    return lines + ([f"{'':<10} and {len(groups) - 8} more"] if len(groups) > 8 else [])


def _stage(role: str, stage: Facts) -> str:
    members = ", ".join(stage["members"])
    if "consensus" in stage:
        members += f" (the first {stage['consensus']} decide where they agree: {cost(stage['least_multiply_adds'])})"
    sure = f", sure from {stage['sure']:g}" if "sure" in stage else ""
    spent = cost(stage["multiply_adds"], stage["uncounted"])
    return f"{role:<10} sigma {stage['sigma']:<5g} {spent} a pass: {members}{sure}"


def _provenance(provenance: Facts) -> list[str]:
    """The few lines of provenance that are always of interest; `--json` shows all."""
    lines = []
    for key in ("dataset", "seed", "source"):
        stated = provenance.get(key)
        if isinstance(stated, dict):
            stated = ", ".join(f"{name} {value}" for name, value in stated.items())
        if stated is not None:
            lines.append(f"{key:<10} {str(stated)[:160]}")
    sessions = provenance.get("training")
    for session in sessions if isinstance(sessions, list) else []:
        if isinstance(session, dict):
            lines.append(f"training   {str(session.get('command'))[:160]} (commit {str(session.get('commit'))[:12]})")
    export = provenance.get("export")
    if isinstance(export, dict):
        lines.append(f"export     {str(export.get('command'))[:160]} ({str(export.get('created'))[:40]})")
    for key in ("parity", "precision"):
        if key in provenance:
            lines.append(f"{key:<10} {str(provenance[key])[:400]}")
    return lines or ["provenance: none is stated"]


def size(count: float, unit: str = "B") -> str:
    """A count with a decimal prefix: 1.2 MB."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000 or prefix == "G":
            return f"{count:.3g} {prefix}{unit}".rstrip()
        count /= 1000
    raise AssertionError


def cost(multiply_adds: int, uncounted: Sequence[str] = ()) -> str:
    """What was counted, and what was not: never a zero for what nobody counted."""
    said = f"{size(multiply_adds, '')} multiply-adds" if multiply_adds else ""
    if uncounted:
        missing = f"{', '.join(uncounted)} not counted"
        return f"at least {said} ({missing})" if said else f"multiply-adds unknown ({missing})"
    return said or "no convolutions or matrix products"
