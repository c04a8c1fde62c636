"""The picture of the README: certified accuracy of the interval rule, of the cascade of sure votes, of the paper's
rule and of each sigma alone, on light and on dark ground, from the committed votes.

    python scripts/curves_figure.py --out docs/images
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from compare_rules import CHOSEN, STUDIES, Study, curves_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.statistics.accuracy import certified_accuracy

GROUNDS = {"light": ("#ffffff", "#24292f"), "dark": ("#0d1117", "#e6edf3")}
BOLD = {
    "interval": ("#2f81f7", "interval rule (ours)"), CHOSEN: ("#3fb950", "sure votes (ours)"),
    "paper": ("#d29922", "the paper's rule"),
}  # fmt: skip
GREY = "#8b949e"
DASHES = ("-", "--", ":")


def panel(axes: Axes, study: Study) -> None:
    """One data set."""
    curves = curves_of(load_results(study.votes), ["single", *BOLD])
    singles = [name for name in curves if name not in BOLD]
    limit = study.radii[-1] + 0.25
    grid = np.concatenate([[0.0], np.linspace(1e-6, limit, 500)])
    for name, dash in zip(singles, DASHES, strict=True):
        shares = 100 * certified_accuracy(curves[name], list(grid))
        axes.step(grid, shares, dash, where="post", color=GREY, lw=1.2, label=f"one {name.replace(':', ' = ')}"
                  .replace("single", "sigma"))  # fmt: skip
    for name, (colour, label) in BOLD.items():
        shares = 100 * certified_accuracy(curves[name], list(grid))
        axes.step(grid, shares, where="post", color=colour, lw=1.8 if name == "paper" else 2.2, label=label)
    for name, row in list(study.published.items())[:1]:
        axes.plot(study.radii, row, "o", ms=4, mfc="none", color="#f85149", label=f"published: {name}")
    axes.set(title=study.title, xlabel="L2 radius", xlim=(0, limit), ylim=(0, 100))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def figure(ground: str, ink: str) -> bytes:
    """All studies whose votes are there, side by side, as SVG."""
    studies = [study for study in STUDIES.values() if study.votes.exists()]
    inked = ("text.color", "xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor")
    style: dict[Any, Any] = dict.fromkeys(inked, ink) | {"svg.hashsalt": "dualsmooth"}
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(4.6 * len(studies), 3.6), layout="constrained", facecolor=ground)
        for place, study in enumerate(studies, start=1):
            axes = drawn.add_subplot(1, len(studies), place, facecolor=ground)
            panel(axes, study)
            if place == 1:
                axes.set_ylabel("certified accuracy (%)")
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="folder of curves-light.svg and curves-dark.svg")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, colours in GROUNDS.items():
        write_atomically(args.out / f"curves-{name}.svg", figure(*colours))


if __name__ == "__main__":
    main()
