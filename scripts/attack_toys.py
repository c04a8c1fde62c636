"""Exhaustive search for broken certificates on toys: every input of a fine grid inside the certified disc.

The toys are real ONNX bundles on inputs (t, u) whose smoothed votes are known in closed form (tests/support/toys.py):
random noise levels, routers of three levels and classifiers of three classes, so that label regions are strips and
quadrants.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from frame import helper
from scipy import special

import dualsmooth as ds

toys = helper("toys")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHA = 1e-6
RULES = tuple(product(("interval", "paper"), ("median", "mode")))
BUDGETS: tuple[ds.Budget, ...] = (ds.Fixed(2000), ds.Adaptive(2000, 0.02), ds.AtRadius(0.2, 2000))
FACTORS = (0.999, 1.25, 2.0)
RADII, ANGLES = 40, 256


@dataclass(frozen=True)
class Toy:
    """Cuts along u that bound the router's levels, and for each level cuts along t that bound its classes."""

    sigmas: tuple[float, ...]
    sigma_e: float
    router: tuple[float, ...]
    classes: tuple[tuple[float, ...], ...]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Toy:
        def pair() -> tuple[float, ...]:
            low = rng.uniform(0.1, 0.6)
            return (float(low), float(low + rng.uniform(0.2, 1.2)))

        return cls((0.25, 0.5, 1.0), float(rng.uniform(0.3, 1.0)), pair(), tuple(pair() for _ in range(3)))

    def write(self, path: Path) -> Path:
        made: Path = toys.write_bundle(
            path, sigmas=self.sigmas, sigma_e=self.sigma_e, estimator_cuts=self.router, classifier_cuts=self.classes
        )
        return made

    def decisions(self, t: Floats, u: Floats, kind: str) -> Ints:
        """The exact label [n] of the dual smoothed classifier at the inputs (t, u) [n]."""
        shares = _shares(u, self.router, self.sigma_e)
        route = np.argmax(np.cumsum(shares, 1) >= 0.5, 1) if kind == "median" else shares.argmax(1)
        labels = np.stack([_shares(t, c, s).argmax(1) for c, s in zip(self.classes, self.sigmas, strict=True)])
        return np.asarray(labels[route, np.arange(len(t))], np.int64)


def _shares(x: Floats, cuts: tuple[float, ...], sigma: float) -> Floats:
    """Probability [n, len(cuts) + 1] that x + sigma z falls between each pair of neighbouring cuts."""
    below = special.ndtr((np.array(cuts) - x[:, None]) / sigma)
    return np.diff(np.hstack([np.zeros((len(x), 1)), below, np.ones((len(x), 1))]))


def disc(t: float, u: float, radius: float) -> tuple[Floats, Floats]:
    """A polar grid around (t, u), its outermost ring at `radius`."""
    r, angle = np.meshgrid(np.linspace(0, radius, RADII + 1)[1:], np.linspace(0, 2 * np.pi, ANGLES, endpoint=False))
    return (t + r * np.cos(angle)).ravel(), (u + r * np.sin(angle)).ravel()


def broken(toy: Toy, certificate: ds.Certificate, t: float, u: float, factor: float) -> bool:
    """Whether some input of the grid within `factor` times the certified radius has another label."""
    found = toy.decisions(*disc(t, u, factor * certificate.radius), certificate.terms.route_kind)
    return bool((found != certificate.label).any())


def search(count: int, seed: int) -> Iterator[tuple[str, list[bool]]]:
    """For each certificate of `count` random toys: its rule, and whether it is broken at each of `FACTORS`."""
    rng = np.random.Generator(np.random.SFC64(seed))
    for number in range(count):
        toy, t, u = Toy.random(rng), float(np.float32(rng.uniform(0, 1))), float(np.float32(rng.uniform(0, 1)))
        with tempfile.TemporaryDirectory() as folder:
            smoother = ds.load(toy.write(Path(folder) / "toy"), threads=1, batch_size=2048)
            for rule, kind in RULES:
                options: dict[str, Any] = {"alpha": ALPHA, "budget": BUDGETS[number % len(BUDGETS)]}
                made = smoother.certify(toys.image(t, u), rule=rule, route=kind, seed=seed + number, **options)
                if made.label is not None:
                    yield f"{rule}, {kind} route", [broken(toy, made, t, u, factor) for factor in FACTORS]


def toy_lines(count: int, seed: int) -> list[str]:
    """The section of docs/attacks.md, as markdown lines."""
    attacked: Counter[str] = Counter()
    hits: Counter[tuple[str, float]] = Counter()
    for rule, found in search(count, seed):
        attacked[rule] += 1
        hits.update((rule, factor) for factor, hit in zip(FACTORS, found, strict=True) if hit)
    lines = [
        f"{count} random toy bundles of three noise levels and three classes on two pixels, alpha = {ALPHA:g}, budgets",
        f"{', '.join(f'`{b}`' for b in BUDGETS)} in turn. The dual classifier's exact label (closed form)",
        f"is compared with the certificate's at {RADII * ANGLES:,} inputs of a polar grid, whose outermost ring is at",
        "the stated multiple of the certified radius R.",
        "",
        "| rule | certificates | " + " | ".join(f"broken at {f:g} R" for f in FACTORS) + " |",
        "| --- |" + " ---: |" * (len(FACTORS) + 1),
    ]
    for rule in attacked:
        lines.append(f"| {rule} | {attacked[rule]} | " + " | ".join(str(hits[rule, f]) for f in FACTORS) + " |")
    return lines
