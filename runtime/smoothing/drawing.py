"""The bars of one certificate as SVG: how far each level is no route, and how far it gives the label.

They are those of the report, whose page draws them itself (`certificateChart` in report/page/detail.js).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from dualsmooth.runtime.bundle.shipped import DATA
from dualsmooth.runtime.rounding import shown
from dualsmooth.runtime.statistics.rules.rule import Outcome

WIDTH, LEFT, RIGHT, TOP, STEP = 420, 74, 20, 26, 50
EXCLUDED, SAME = "never the route within", "same label within"
DIGITS = 3


class Bar(NamedTuple):
    """One bar: its colour, where it stands below its level's top, what it measures, and where its figure is written."""

    colour: str
    down: int
    radius: float
    text_down: int


def colours_css() -> str:
    """The colours of reports and certificates, light and dark, as variables of the whole page."""
    return (DATA / "colours.css").read_text(encoding="utf-8")


def bars_svg(outcome: Outcome, sigmas: Sequence[float], reading: str) -> str:
    """Two bars for each noise level, and the certified radius as a line across them; `reading` says how it follows from
    them. Empty where the rule has no radii of levels."""
    if not outcome.exclusion:
        return ""
    finite = [r for r in (*outcome.exclusion, *outcome.class_radii, outcome.radius) if math.isfinite(r)]
    scale = (WIDTH - LEFT - RIGHT) / (1.16 * max(0.05, *finite))
    certified = LEFT + scale * outcome.radius
    bottom = TOP + STEP * len(sigmas)
    parts = []
    for level, sigma in enumerate(sigmas):
        y, chosen = TOP + STEP * level, level == outcome.route
        mark, strong = ("▸ ", ' class="strong"') if chosen else ("", "")
        parts.append(f'<text{strong} x="{LEFT - 8}" y="{y + 22}" text-anchor="end">{mark}σ = {sigma:g}</text>')
        for bar in (Bar("s1", 0, outcome.exclusion[level], 12), Bar("s0", 18, outcome.class_radii[level], 30)):
            parts += _bar(bar, y, scale, certified)
    radius, anchor = _radius(outcome.radius), "end" if certified > WIDTH - 90 else "middle"
    x = min(certified, WIDTH - 70)
    parts.append(f'<line x1="{certified:.2f}" x2="{certified:.2f}" y1="20" y2="{bottom}"/>')
    parts.append(f'<text class="strong" x="{x:.2f}" y="14" text-anchor="{anchor}">R = {radius}</text>')
    keys = [(EXCLUDED, "s1"), (SAME, "s0"), *([(reading, "")] if reading else [])]
    for number, (words, colour) in enumerate(keys):
        parts += _key(words, colour, bottom + 22 + 18 * number)
    label = f"Per level: exclusion radius and class radius; certified radius {radius}"
    height = bottom + 10 + 18 * len(keys)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _bar(bar: Bar, top: int, scale: float, certified: float) -> list[str]:
    """A rectangle and its figure; pale and without one where the radius is infinite."""
    endless = math.isinf(bar.radius)
    wide = WIDTH - LEFT - RIGHT if endless else max(scale * bar.radius, 1)
    parts = [
        f'<rect x="{LEFT}" y="{top + bar.down}" width="{wide:.2f}" height="15" rx="2" fill="var(--{bar.colour})" '
        f'fill-opacity="{0.25 if endless else 0.85}"/>'
    ]
    if not endless:
        x = max(LEFT + scale * bar.radius, certified) + 5
        parts.append(f'<text class="tiny" x="{x:.2f}" y="{top + bar.text_down}">{_radius(bar.radius)}</text>')
    return parts


def _key(words: str, colour: str, y: int) -> list[str]:
    square = f'<rect x="4" y="{y - 10}" width="11" height="11" rx="2" fill="var(--{colour})"/>' if colour else ""
    return [square, f'<text x="{20 if colour else 4}" y="{y}">{escape(words)}</text>']


def _radius(radius: float) -> str:
    return shown(radius, DIGITS)
