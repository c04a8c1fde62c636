"""Which votes should be sure, and what share of them should answer: rule `sure:P` on validation images, docs/sure.md.

The deployed networks of each bundle that ships vote on noisy copies of images that its training held out. Every choice
of the softmax from which on a vote is sure, at each level above the smallest, and of P then has a radius for each
image: that of the rule's own plan, at the shares of votes themselves (no bounds). No test image is looked at.

    python scripts/sure_table.py --out docs/sure.md --force
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from compare_rules import STUDIES, Study
from frame import add_page, machine, parsed, publish, say

import dualsmooth as ds
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.rules.confidence import Confidence
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, PREDICTION, Stream
from dualsmooth.training.config import config_from, read_toml
from dualsmooth.training.data import load_training_data

SHARES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.91, 0.92, 0.93, 0.95)
LEAST = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SLACK = 0.02
"""How far below the reference a choice may be at some radius."""
MOST = float(lower_bound(10_000, 10_000, 5e-4))
"""No more is proved of a probability by 10,000 votes."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Votes of each level: the class and its softmax [levels, images, passes], and the true labels [images]."""

    votes: npt.NDArray[np.int8]
    softmax: npt.NDArray[np.float16]
    truth: npt.NDArray[np.int64]

    def shares(self, level: int, classes: int, sure: float) -> Array:
        """The share of votes for each class, and of unsure ones [images, classes + 1]."""
        votes = np.where(self.softmax[level] >= sure, self.votes[level], classes)
        return np.stack([(votes == c).mean(1) for c in range(classes + 1)], 1)


def drawn(name: str, images: int, passes: int, cache: Path) -> Drawn:
    """Votes on `images` of the validation images of the run that the bundle is of; kept in `cache`."""
    if cache.exists():
        return Drawn(**np.load(cache))
    smoother = ds.load(name)
    bundle, data = smoother.bundle, load_training_data(config_from(read_toml(Path(f"configs/{name}.toml")), "train"))
    chosen = np.linspace(0, len(data.validation_images) - 1, images).astype(int)
    votes = np.zeros((len(bundle.sigmas), images, passes), np.int8)
    softmax = np.zeros(votes.shape, np.float16)
    for level, model in enumerate(bundle.classifiers):
        sigma, stream = bundle.sigmas[level], Stream(CLASSIFIER, level, PREDICTION)
        for number, index in enumerate(chosen):
            batch = np.empty((passes, *bundle.input_shape), np.float32)
            pixels = smoother.check_image(data.validation_images[int(index)])
            add_noise(Seed(20261128, int(index)).generator(stream), pixels, sigma, batch)
            each = [smoother.engine.logits(name, batch, sigma, len(bundle.classes)) for name in model.members]
            logits = np.mean(each, 0, dtype=np.float64)
            votes[level, number] = logits.argmax(1)
            softmax[level, number] = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
            if number % 100 == 99:
                say(f"{name}: sigma {sigma:g}, {number + 1} of {images} images")
    found = Drawn(votes, softmax, np.asarray(data.validation_labels)[chosen])
    np.savez(cache, **vars(found))
    return found


def radii(terms: Terms, shares: Sequence[Array], truth: npt.NDArray[np.int64]) -> Array:
    """The radius of each image by the rule's plan at these shares of votes; -1 where the label is wrong."""
    rule, classes = terms.rule, terms.classes
    assert isinstance(rule, Confidence)
    found = np.full(len(truth), -1.0)
    for image, label in enumerate(truth):
        answers = (s for s in range(len(shares) - 1, 0, -1) if shares[s][image, :classes].max() >= rule.least_at(s))
        route = next(answers, 0)
        if shares[route][image, :classes].argmax() == label:
            plan = rule.plan(terms, route, int(label))
            lower = [_probability(shares[c.level][image], c.event, c.rivals) for c in plan.claims]
            found[image] = plan.radius(np.array(lower))
    return found


def _probability(shares: Array, event: tuple[int, ...], rivals: bool) -> float:
    """What the bound of a claim would tend to with more and more votes, as far as 10,000 prove it."""
    exact = 1 - np.delete(shares, event).max() if rivals else shares[list(event)].sum()
    return float(np.clip(exact, 1 - MOST, MOST))


def every_choice(study: Study, bundle: ds.Bundle, votes: Drawn) -> Iterator[tuple[tuple[float, ...], float, Array]]:
    """Shares that make a vote sure, P, and the radii [images]."""
    classes, above = len(bundle.classes), range(1, len(bundle.sigmas))
    table = {(level, sure): votes.shares(level, classes, sure) for level in above for sure in (0.0, *SHARES)}
    first = votes.shares(0, classes, 0.0)
    for least in LEAST:
        for sure in [(0.0,) * len(above), *product(SHARES, repeat=len(above))]:
            terms = checked_terms(
                bundle.sigmas, bundle.sigma_e, classes, alpha=1e-3, rule=f"sure:{least}", route=None,
                budget=ds.Fixed(10_000), sure=sure,
            )  # fmt: skip
            shares = [first, *(table[level, t] for level, t in zip(above, sure, strict=True))]
            yield sure, least, radii(terms, shares, votes.truth)


def curve(found: Array, at: Sequence[float]) -> Array:
    return np.array([(found >= max(r, 1e-6)).mean() for r in at])


def row(name: str, found: Array, study: Study) -> str:
    """A line of the table."""
    accuracy = curve(found, study.radii)
    cells = [
        *(f"{100 * a:.1f}" for a in accuracy),
        f"{np.maximum(found, 0).mean():.3f}",
        f"{100 * accuracy.mean():.1f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


SECTION = """## {title}

{images} validation images, {passes} passes a level; bundle `{name}` ({precision}), which says {stated}.
{reference}

{table}
"""
PAGE = """# Which votes are sure

`sure:P` counts, above the smallest level, the votes whose softmax reaches a number that the bundle states for the level
([theorem 10](mathematics.md)). Those numbers are part of the classifier that is certified, as its weights are: they are
chosen before anything is certified, on images that are not certified. This page shows how those of the bundles that
ship were chosen: of {tried} choices (softmax {shares}
at each level, P {least}), those that are nowhere more than two points below a reference, and of
them those with the largest mean over the radii. Near the best, choices differ by less than other images would make
them differ. A cell is the share of images (in %) that are right and have radius r at the very shares of votes, without
bounds; "none" counts every vote.

Written by `python scripts/sure_table.py`; {machine}.

For networks of one's own: `dualsmooth export … --sure 0.6,0.91` puts the numbers into the bundle; without them every
vote is sure, and `sure:P` is `confidence:P`.

{sections}"""


def section(name: str, args: argparse.Namespace) -> str:
    study, bundle = STUDIES[name], ds.read_bundle(name)
    votes = drawn(name, args.images, args.passes, args.cache / f"sure-{name}.npz")
    found = {(sure, least): r for sure, least, r in every_choice(study, bundle, votes)}
    none = (0.0,) * (len(bundle.sigmas) - 1)
    published = next(iter(study.published.items()), None)
    plain = found[none, 0.5]
    reference = curve(plain, study.radii) if published is None else np.array(published[1]) / 100
    named = "`confidence:0.5` on the same votes" if published is None else f"the published row of {published[0]}"
    good = {key: r for key, r in found.items() if bool(np.all(curve(r, study.radii) >= reference - SLACK))}
    best = sorted(good, key=lambda key: -float(curve(good[key], study.radii).mean()))[:8]
    rows = [
        row(f"{' / '.join(f'{t:g}' for t in sure)}, P = {least:g}", found[sure, least], study) for sure, least in best
    ]
    stated = [row(f"as stated, P = {p:g}", found[bundle.sure, p], study) for p in LEAST if (bundle.sure, p) in found]
    bare = [row(f"none, P = {p:g}", found[none, p], study) for p in LEAST]
    head = "| softmax, and P | " + " | ".join(f"{r:g}" for r in study.radii) + " | ACR | mean |"
    rule = "| --- |" + " ---: |" * (len(study.radii) + 2)
    known = (
        []
        if published is None
        else [f"| {published[0]} | " + " | ".join(f"{100 * a:.1f}" for a in reference) + " | | |"]
    )
    return SECTION.format(
        title=study.title, images=args.images, passes=args.passes, name=name, precision=bundle.precision,
        stated=" and ".join(f"{t:g} at sigma = {s:g}" for t, s in zip(bundle.sure, bundle.sigmas[1:], strict=True)),
        reference=f"{len(good)} choices are nowhere more than two points below {named}; the best of them, what is "
        "stated, and none:",
        table="\n".join([head, rule, *rows, *stated, *bare, *known]),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path("build"), help="folder where the votes are kept")
    add_page(parser)
    args = parsed(parser)
    sections = [section(name, args) for name in STUDIES]
    page = PAGE.format(
        tried=len(LEAST) * (1 + len(SHARES) ** 2), shares=", ".join(f"{t:g}" for t in SHARES),
        least=", ".join(f"{p:g}" for p in LEAST), machine=machine("onnxruntime"), sections="\n".join(sections),
    )  # fmt: skip
    publish(page.rstrip() + "\n", args.page)


if __name__ == "__main__":
    main()
