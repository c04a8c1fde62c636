"""Tables of certified accuracy at given radii: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.report.bands import LEVEL, accuracy_band
from dualsmooth.runtime.statistics.accuracy import RADII, average_certified_radius, certified_accuracy
from dualsmooth.runtime.terminal import print_table

Radii = Mapping[str, npt.NDArray[np.float64]]
"""Name of a curve to the certified radii [N] of `curves.certified_radii`."""

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\n": " ",
    }
)


def markdown_table(curves: Radii, at: Sequence[float] = RADII) -> str:
    """Certified accuracy in percent at each radius, one row a curve."""
    lines = ["| certified accuracy (%) at r = | " + " | ".join(f"{r:g}" for r in at) + " | ACR |"]
    lines.append("| --- |" + " ---: |" * (len(at) + 1))
    lines += [f"| {name} | {' | '.join(accuracy_cells(radii, at))} |" for name, radii in curves.items()]
    return "\n".join(lines)


def accuracy_cells(radii: npt.NDArray[np.float64], at: Sequence[float] = RADII) -> list[str]:
    """The cells of a row: certified accuracy in percent at each radius, and the average certified radius."""
    return [*(f"{100 * a:.1f}" for a in certified_accuracy(radii, at)), f"{average_certified_radius(radii):.3f}"]


def print_accuracy(curves: Radii, at: Sequence[float] = RADII) -> None:
    """`markdown_table` to stdout, drawn where that is a terminal."""
    rows = [[name, *accuracy_cells(radii, at)] for name, radii in curves.items()]
    head = ["certified accuracy (%) at r =", *(f"{r:g}" for r in at), "ACR"]
    print_table(head, rows, markdown_table(curves, at), sys.stdout)


def csv_table(curves: Radii, at: Sequence[float] = RADII) -> str:
    """One line a curve and radius: curve, radius, images, certified, accuracy, and the ends of its band."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", "radius", "images", "certified", "accuracy", f"low_{LEVEL:g}", f"high_{LEVEL:g}"])
    for name, radii in curves.items():
        for r, accuracy in zip(at, certified_accuracy(radii, at), strict=True):
            certified = round(accuracy * len(radii))
            low, high = accuracy_band(certified, len(radii))
            writer.writerow(
                [_inert(name), f"{r:g}", len(radii), certified, f"{accuracy:.6f}", f"{low:.6f}", f"{high:.6f}"]
            )
    return text.getvalue()


def latex_table(curves: Radii, at: Sequence[float] = RADII) -> str:
    """A booktabs table: certified accuracy in percent at each radius, the best of each radius in bold."""
    shares = {name: 100 * certified_accuracy(radii, at) for name, radii in curves.items()}
    best = np.max([s.round(1) for s in shares.values()], axis=0)
    lines = [
        r"\begin{tabular}{l" + "r" * len(at) + "}",
        r"\toprule",
        "Certified accuracy (\\%) at $r=$ & " + " & ".join(f"{r:g}" for r in at) + r" \\",
        r"\midrule",
    ]
    for name, values in shares.items():
        cells = [
            rf"\textbf{{{v:.1f}}}" if len(shares) > 1 and round(v, 1) == b > 0 else f"{v:.1f}"
            for v, b in zip(values, best, strict=True)
        ]
        lines.append(f"{name.translate(_LATEX)} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _inert(text: str) -> str:
    """A spreadsheet shows the text and never runs it as a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
