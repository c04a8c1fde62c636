"""A plot of certified accuracy against radius, with Matplotlib."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.report.bands import LEVEL, accuracy_band
from dualsmooth.runtime.report.curves import Curve, colours
from dualsmooth.runtime.statistics.accuracy import certified_accuracy
from dualsmooth.runtime.statistics.norms import L2, norm_named

NOTE_WIDTH = 110
"""Characters in a line under the axis."""


def plot_curves(
    curves: Sequence[Curve],
    path: str | Path | None = None,
    *,
    title: str = "",
    note: str = "",
    norm: str = L2,
) -> str:
    """Draw certified accuracy against radius, each with its band; write a PNG or SVG to `path` (by its suffix), or
    return the SVG's text where it is None. `note` says under the axis what the figures rest on (images, N, alpha).
    Curves that were decided at some radii are shown at those only. `norm`: of the curves' radii.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with pip install 'dualsmooth[report]'") from error
    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    limit = max([0.25 if norm == L2 else 0.001, *(float(curve.radii.max()) for curve in curves)]) * 1.05
    for curve, place in zip(curves, colours(curves), strict=True):
        radii, points, colour = curve.radii, curve.decided, f"C{place}"
        label = f" {curve.name}" if curve.name.startswith("_") else curve.name  # Matplotlib leaves out what begins so
        grid = np.concatenate([[0.0], np.linspace(1e-6, limit, 600)]) if points is None else np.array(points)
        shares = certified_accuracy(radii, list(grid))
        low, high = accuracy_band(np.round(shares * len(radii)), len(radii))
        if points is not None:
            ends = 100 * np.maximum(np.stack([shares - low, high - shares]), 0.0)
            axes.errorbar(
                grid, 100 * shares, ends, fmt="o:", color=colour, capsize=3, label=f"{label} (decided at the dots)"
            )
            continue
        axes.step(grid, 100 * shares, "--" if curve.dashed else "-", color=colour, where="post", label=label)
        if not curve.dashed:
            axes.fill_between(grid, 100 * low, 100 * high, step="post", color=colour, alpha=0.12, linewidth=0)
    axes.set(ylabel="certified accuracy (%)")
    axes.set_xlabel(f"{norm_named(norm).title} radius (pixels in [0, 1])")
    if note:
        figure.supxlabel(textwrap.fill(note, NOTE_WIDTH), fontsize="x-small", parse_math=False)
    axes.set_title(title, parse_math=False)
    axes.set_ylim(0, 100)
    axes.set_xlim(0, limit)
    axes.grid(alpha=0.3)
    legend = axes.legend(title=f"bands: {LEVEL:.0%} Clopper–Pearson", title_fontsize="small")
    for words in legend.get_texts():  # names of files are text, whatever dollar signs they hold
        words.set_parse_math(False)
    svg = path is None or Path(path).suffix == ".svg"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg" if svg else "png", dpi=130)
    if path is None:
        text = buffer.getvalue().decode()
        return text[text.index("<svg") :]
    write_atomically(path, buffer.getvalue())
    return str(path)
