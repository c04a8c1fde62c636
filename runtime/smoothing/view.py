"""A certificate to look at: HTML for notebooks, text for terminals. No script, nothing fetched, all texts escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.shipped import DATA
from dualsmooth.runtime.datasets.png import png
from dualsmooth.runtime.errors import one_of, printable
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.drawing import DIGITS, EXCLUDED, SAME, bars_svg, colours_css
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms

SHOWN = 6
"""How many classes of a group are named."""
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """What notebooks show as HTML where it is the last line of a cell, and prompts and `print` as text."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def label_words(answer: Sequence[int], classes: Sequence[str], group: str | None = None) -> str:
    """An answer for people: the name of its class where names are known, and its number; a group and its classes; the
    classes of a set."""
    if not answer:
        return "abstained"
    names = [printable(classes[c]) if classes else f"class {c}" for c in answer]
    if len(answer) == 1:
        return f"{names[0]} (class {answer[0]})" if classes else names[0]
    if group is None:
        return one_of(names)
    return f"{printable(group)} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"


def short_words(part: Part, classes: Sequence[str]) -> str:
    """A group's name, that of a class, or those of a set's classes."""
    return printable(part.name) if part.name else one_of([printable(classes[c]) for c in part.classes])


def class_name(label: int | None, classes: Sequence[str]) -> str | None:
    """The name of a label's class; None on abstention, and where names are not known."""
    return classes[label] if classes and label is not None else None


def eight_bits(pixels: npt.NDArray[np.float32]) -> Picture:
    """An image [C,H,W] in [0, 1] in the 256 levels that screens show."""
    return np.rint(255 * pixels).astype(np.uint8)


def view(
    outcome: Outcome,
    terms: Terms,
    passes: int,
    *,
    classes: Sequence[str],
    picture: Picture | None,
    notes: Sequence[str],
) -> View:
    """What an outcome says, its bars, and its `picture` [C,H,W] where there is one, in grey or in colours; `notes` are
    its small print."""
    group = outcome.asked.name or None if outcome.asked else None
    words, radius = label_words(outcome.answer, classes, group), shown(outcome.radius, DIGITS)
    sure = f"confidence {confidence(terms.alpha)}"
    parts = [
        f"route radius {shown(outcome.route_radius, DIGITS)}",
        f"class radius {shown(outcome.class_radius, DIGITS)}",
    ]
    parts = ["no router"] if terms.sigma_e is None else parts
    facts = [f"noise level σ = {terms.sigmas[outcome.route]:g}", *parts, f"{passes} passes"]
    if not outcome.answer:
        said = f"<b>{words}</b>: the votes do not settle {outcome.unsettled} (at {sure})."
        lines = [f"{words}: the votes do not settle {outcome.unsettled} (at {sure})"]
    else:
        said = f"<b>{escape(words)}</b>: no change smaller than <b>{radius}</b> (L2) can alter that, at {sure}."
        lines = [f"{words}: no change smaller than {radius} (L2) can alter that, at {sure}"]
    small = "".join(f"<small>{escape(line)}</small>" for line in (", ".join(facts), *notes))
    style = colours_css().replace(":root", ".dualsmooth") + (DATA / "certificate.css").read_text(encoding="utf-8")
    bars = bars_svg(outcome, terms.sigmas, terms.rule.legend.reading)
    right = f"<div><p>{said}</p>{bars}{small}</div>"
    html = f'<div class="dualsmooth"><style>{style}</style>{_img(picture, words)}{right}</div>'
    return View(html, "\n".join([*lines, *_bars_text(outcome, terms.sigmas), ", ".join(facts), *notes]))


def _img(picture: Picture | None, words: str) -> str:
    if picture is None or picture.shape[0] not in (1, 3):
        return ""
    data = base64.b64encode(png(picture)).decode()
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}"/>'


def _bars_text(outcome: Outcome, sigmas: Sequence[float]) -> list[str]:
    """The bars as a table: a line for each level, the route marked."""
    if not outcome.exclusion:
        return []
    lines = [f"{'σ':>8}  {EXCLUDED:>22}  {SAME:>17}"]
    for level, radii in enumerate(zip(outcome.exclusion, outcome.class_radii, strict=True)):
        excluded, same = (shown(radius, DIGITS) for radius in radii)
        mark = "▸" if level == outcome.route else " "
        lines.append(f"{mark}{sigmas[level]:>7g}  {excluded:>22}  {same:>17}")
    return lines
