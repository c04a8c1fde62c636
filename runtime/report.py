"""Tables and curves of certified accuracy: text, PNG, and one self-contained HTML page."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.curves import RADII, average_certified_radius, certified_accuracy
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically

Curves = Mapping[str, npt.NDArray[np.float64]]
"""Name of a rule (or file) to the certified radii [N] of `curves.certified_radii`."""


def markdown_table(curves: Curves, at: Sequence[float] = RADII) -> str:
    """Certified accuracy in percent at each radius, one row a curve."""
    lines = ["| certified accuracy (%) at r = | " + " | ".join(f"{r:g}" for r in at) + " | ACR |"]
    lines.append("| --- |" + " ---: |" * (len(at) + 1))
    for name, radii in curves.items():
        values = " | ".join(f"{100 * a:.1f}" for a in certified_accuracy(radii, at))
        lines.append(f"| {name} | {values} | {average_certified_radius(radii):.3f} |")
    return "\n".join(lines)


def plot_curves(curves: Curves, path: str | Path | None = None, *, title: str = "") -> str:
    """Draw certified accuracy against radius; write a PNG to `path`, or return the SVG's text where it is None."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with pip install 'dualsmooth[report]'") from error
    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    limit = max([0.25, *(float(radii.max()) for radii in curves.values())]) * 1.05
    grid = np.concatenate([[0.0], np.linspace(1e-6, limit, 600)])
    for name, radii in curves.items():
        style = "--" if name.startswith(("single", "oracle")) else "-"
        axes.step(grid, 100 * certified_accuracy(radii, list(grid)), style, where="post", label=name)
    axes.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy (%)", title=title)
    axes.set_ylim(0, 100)
    axes.set_xlim(0, limit)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg" if path is None else "png", dpi=130)
    if path is None:
        text = buffer.getvalue().decode()
        return text[text.index("<svg") :]
    write_atomically(path, buffer.getvalue())
    return str(path)


def html_report(curves: Curves, facts: Mapping[str, Any], at: Sequence[float] = RADII) -> str:
    """One page without any reference outside of itself: what was measured, the curves, the table."""
    escape = html.escape
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{100 * a:.1f}</td>" for a in certified_accuracy(radii, at))
        + f"<td>{average_certified_radius(radii):.3f}</td></tr>"
        for name, radii in curves.items()
    )
    head = "".join(f"<th>{r:g}</th>" for r in at)
    about = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>dualsmooth report</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}"
        "td:first-child,th:first-child{text-align:left}dt{font-weight:600}dd{margin:0 0 .4rem}"
        "svg{width:100%;height:auto}"
        f"</style><h1>Certified accuracy</h1><p>Share of images whose predicted label is correct and provably constant "
        f"within an L2 ball of radius r.</p>{plot_curves(curves)}"
        f"<table><tr><th>certified accuracy (%) at r =</th>{head}<th>ACR</th></tr>{rows}</table>"
        f"<h2>How it was measured</h2><dl>{about}</dl></html>"
    )
