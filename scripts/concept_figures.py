"""The pictures of docs/concepts.md: votes, radius, route and the interval rule, drawn from one committed certificate.

The counts and radii are those of the certificate in docs/results/; the noisy copies are drawn here, for the eye, and
voted on by the bundle that ships. Each picture brings its own ground, light or dark as the reader's system has it.

    python scripts/concept_figures.py --out docs/images
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from frame import VOTES
from scipy.stats import norm

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_IMAGES
from dualsmooth.runtime.datasets.png import png
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.rounding import shown
from dualsmooth.runtime.smoothing.drawing import bars_svg, colours_css
from dualsmooth.runtime.statistics.bounds import lower_bound

INDEX = 720
"""The test image: its route is in some doubt, and the levels agree on the label."""
WIDTH = 640
STYLE = """
text { fill: var(--soft); font: 13px system-ui, sans-serif; } .strong { fill: var(--ink); font-weight: 600; }
.tiny { font-size: 11px; } line, polyline { stroke: var(--ink); stroke-width: 2; fill: none; }
.thin { stroke: var(--soft); stroke-width: 1; } .dashed { stroke-dasharray: 4 4; stroke-width: 1; }
image { image-rendering: pixelated; }
"""


@dataclass(frozen=True)
class Case:
    """A certified image: pixels uint8 [1,H,W], the certificate, names of classes, the smoother of its bundle."""

    picture: npt.NDArray[np.uint8]
    certificate: ds.Certificate
    classes: tuple[str, ...]
    smoother: ds.Smoother

    def votes(self, stream: str) -> dict[int, int]:
        """The bounded votes of a stream, `classifier/2` or `estimator/0`: how often each class or level, most first."""
        counts: Mapping[str, int] = self.certificate.to_dict()["votes"][f"{stream}/estimation"][0]
        return dict(sorted(((int(k), n) for k, n in counts.items()), key=lambda pair: -pair[1]))

    @property
    def route(self) -> int:
        return self.certificate.outcome.route

    @property
    def bound(self) -> float:
        """The lower bound on the share of the label at the route, at the share of alpha that it has in certificates."""
        hits = self.votes(f"classifier/{self.route}")[self.certificate.outcome.guess]
        return float(lower_bound(hits, 10_000, 0.9 * self.certificate.alpha))

    def copies(self, count: int, sigma: float) -> npt.NDArray[np.float32]:
        """Noisy copies [count,1,H,W]."""
        noise = np.random.default_rng(INDEX).normal(size=(count, *self.picture.shape))
        return (self.picture / 255 + sigma * noise).astype(np.float32)


def case() -> Case:
    """The committed certificate of the image `INDEX`."""
    stored = next(r.certificate for r in load_results(VOTES) if r.index == INDEX)
    certificate = stored.recompute(rule="interval")  # the file has the shares of alpha of version 1
    with np.load(SHIPPED_IMAGES) as arrays:
        picture = arrays["x"][list(arrays["index"]).index(INDEX)][None]
        classes = tuple(map(str, arrays["classes"]))
    return Case(picture, certificate, classes, ds.load("fashion-mnist", threads=1))


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text{marked} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<line{marked} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def bar(x: float, y: float, width: float, colour: str, height: float = 18) -> str:
    width = max(width, 1)
    return f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{height:g}" rx="2" fill="var(--{colour})"/>'


def thumbnail(pixels: npt.NDArray[np.float32] | npt.NDArray[np.uint8], x: float, y: float, side: float) -> str:
    """A picture [1,H,W], uint8, or in [0, 1] and cut to that for the eye."""
    eight = pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
    data = base64.b64encode(png(np.asarray(eight, np.uint8))).decode()
    return f'<image x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" href="data:image/png;base64,{data}"/>'


def sheet(height: int, label: str, parts: Sequence[str], width: int = WIDTH) -> str:
    """An SVG file on its own ground."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(label)}">\n<style>\n{colours_css()}{STYLE}</style>\n'
        f'<rect width="{width}" height="{height}" rx="10" fill="var(--card)"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def votes(of: Case) -> str:
    """An image, what the classifier at the route sees of it and says, and all of its votes."""
    level, sigmas = of.route, of.certificate.terms.sigmas
    copies, classifier = of.copies(8, sigmas[level]), of.smoother.bundle.classifiers[level]
    said = of.smoother.engine.votes(classifier, copies, sigmas[level], len(of.classes))
    parts = [
        text(20, 28, "the image", "strong"),
        thumbnail(of.picture, 20, 40, 112),
        text(20, 170, f"test image {INDEX}"),
    ]
    parts += [text(168, 28, f"noisy copies, σ = {sigmas[level]:g}, and the vote of each", "strong")]
    for number, (copy, vote) in enumerate(zip(copies, said, strict=True)):
        x, y = 168 + 66 * (number % 4), 40 + 80 * (number // 4)
        parts += [thumbnail(copy, x, y, 58), text(x + 29, y + 71, of.classes[vote], "tiny", "middle")]
    counts = of.votes(f"classifier/{level}")
    parts += [text(460, 28, f"all {sum(counts.values()):,} votes", "strong")]
    for number, (name, count) in enumerate(list(counts.items())[:4]):
        y = 44 + 38 * number
        parts += [text(460, y + 10, of.classes[name]), text(620, y + 10, f"{count:,}", "", "end")]
        parts += [bar(460, y + 15, 160 * count / sum(counts.values()), "s0", 8)]
    return sheet(210, f"Votes on noisy copies of test image {INDEX}", parts)


def radius(of: Case) -> str:
    """From the share of the votes to the radius."""
    sigma, counts = of.certificate.sigma, of.votes(f"classifier/{of.route}")
    hits, total, p = counts[of.certificate.outcome.guess], sum(counts.values()), of.bound
    left, right, bottom, top, most = 70.0, 610.0, 240.0, 30.0, 3.5

    def at(share: float, length: float) -> tuple[float, float]:
        return left + (right - left) * (share - 0.5) / 0.5, bottom - (bottom - top) * length / most

    curve = [at(norm.cdf(r / sigma), r) for r in np.linspace(0, most, 200)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
    x, y = at(p, sigma * norm.ppf(p))
    parts = [line(left, bottom, right, bottom, "thin"), line(left, bottom, left, top, "thin")]
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts.append(text(at(share, 0)[0], bottom + 18, f"{share:g}", "tiny", "middle"))
    parts += [text(left - 8, at(0.5, r)[1] + 4, f"{r}", "tiny", "end") for r in range(4)]
    parts += [text(right, bottom + 38, "p: at least this share of all noisy copies votes for the label", "", "end")]
    parts += [text(left - 8, 20, "radius", "strong", "end"), f'<polyline points="{points}"/>']
    parts += [line(left, y, x, y, "dashed"), line(x, y, x, bottom, "dashed")]
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--s1)"/>']
    parts += [text(left + 12, y - 26, f"{hits:,} of {total:,} votes: p is {p:.4f} or more, with 99.9 % confidence")]
    parts += [text(left + 12, y - 8, f"radius = σ Φ⁻¹(p) = {shown(sigma * norm.ppf(p), 3)}", "strong")]
    parts += [text(at(0.66, 0)[0], at(0, 0.85)[1], f"σ Φ⁻¹(p), σ = {sigma:g}")]
    return sheet(290, "The radius as a function of the share of votes", parts)


def route(of: Case) -> str:
    """The votes of stage one, in the order of the levels, and where their half is."""
    terms, counts = of.certificate.terms, of.votes("estimator/0")
    assert terms.sigma_e is not None
    total, left, wide = sum(counts.values()), 20.0, 600.0
    parts = [text(20, 28, f"stage one sees noisy copies, σ_e = {terms.sigma_e:g} …", "strong")]
    parts += [thumbnail(copy, 20 + 66 * n, 40, 58) for n, copy in enumerate(of.copies(9, terms.sigma_e))]
    parts += [text(20, 128, "… and votes for noise levels, here in ascending order", "strong")]
    x = left
    for level, sigma in enumerate(terms.sigmas):
        width = wide * counts.get(level, 0) / total
        if width:
            parts += [bar(x, 140, width, ("s3", "s1", "s0")[level], 26)]
            parts += [text(x + width / 2, 184, f"σ = {sigma:g}: {counts[level]:,}", "", "middle")]
        x += width
    middle = left + wide / 2
    parts += [line(middle, 134, middle, 196), text(middle, 212, "the median vote is the route", "strong", "middle")]
    for level, words in ((0, "has no vote, and would need half of them"), (1, "would need half of the votes")):
        far = shown(of.certificate.outcome.exclusion[level], 3)
        parts.append(text(20, 238 + 20 * level, f"σ = {terms.sigmas[level]:g} {words}: not closer than {far}"))
    return sheet(276, "The votes of stage one for noise levels", parts)


def interval(of: Case) -> str:
    """The bars of the report, and where the paper's rule ends."""
    outcome, terms = of.certificate.outcome, of.certificate.terms
    bars = bars_svg(outcome, terms.sigmas, terms.rule.legend.reading)
    inner = bars[bars.index(">") + 1 : -len("</svg>")]
    height = int(bars.split('viewBox="0 0 420 ')[1].split('"')[0])
    moved = f'<g transform="translate(14 8)">{inner}</g>'
    return sheet(height + 20, "Exclusion and class radius by level, and the certified radius", [moved], 440)


def figures(of: Case) -> dict[str, str]:
    """Each picture by its file name."""
    return {f"concept-{draw.__name__}.svg": draw(of) for draw in (votes, radius, route, interval)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures, concept-*.svg")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, drawn in figures(case()).items():
        write_atomically(args.out / name, drawn)


if __name__ == "__main__":
    main()
