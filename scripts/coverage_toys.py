"""Toys at their worst case, of which the exact radius is known, and every way to certify them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from frame import helper
from scipy import special

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.streams import Noise
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.rules.interval import EXCLUSION_SHARE
from dualsmooth.runtime.statistics.rules.plan import RIVAL_SHARE

toys = helper("toys")

N = 150
HITS = 140
"""The worst case is just below the bound that so many of N votes prove."""
BELOW = 1e-5
"""So far below: more than what rounding a radius down takes away."""
STEP = 1 / 255
DISTANCE = 50.5 * STEP
"""Images lie on the lattice Z/255 and cuts between its points, so that rounding to the lattice moves no vote."""
FAR = 3000.5 * STEP

BUDGETS: dict[str, ds.Budget] = {
    "fixed": ds.Fixed(N, n0=20),
    "adaptive": ds.Adaptive(3 * N, 0.1, n0=20),
    "at-radius": ds.AtRadius(1.02 * DISTANCE, 3 * N, n0=20),
    "at-radii": ds.AtRadii((DISTANCE / 2, 1.02 * DISTANCE), 3 * N, n0=20),
}
RULES = (("interval", "median"), ("interval", "mode"), ("paper", "median"), ("paper", "mode"), ("single", "mode"))
ENGINES = ("closed form", "ONNX Runtime")


class Mode(NamedTuple):
    """One way to certify."""

    rule: str
    route: str
    budget: str
    engine: str
    noise: Noise

    def __str__(self) -> str:
        return ", ".join((self.rule, self.route, self.budget, self.engine, noise_name(self.noise)))


@dataclass(frozen=True)
class Scene:
    """A toy and an input of it, in steps of the lattice; what bounds the radius is in the scene's name."""

    name: str
    t: int
    u: int
    router: tuple[float, ...]
    classes: tuple[float, ...]
    sigmas: tuple[float, ...]
    sigma_e: float

    def truth(self, label: int, mode: Mode) -> float:
        """The exact radius of the label at the input, in pixels."""
        t, u, cuts = self.t * STEP, self.u * STEP, [c * STEP for c in self.classes]
        if mode.rule in ("single", "multiscale"):  # of two classes, the largest level never abstains
            cut = cuts[0 if mode.rule == "single" else -1]
            return max(0.0, t - cut if label else cut - t)
        return float(
            toys.true_radius(
                t, u, label, estimator_cuts=[c * STEP for c in self.router], classifier_cuts=cuts,
                sigma_e=self.sigma_e, kind=mode.route,
            )
        )  # fmt: skip


def scenes(mode: Mode, alpha: float) -> list[Scene]:
    """Toys at the worst case of a rule, one for each thing that can bound the radius."""

    def at_worst(share: float) -> float:
        """The noise level at which a claim with this share of alpha fails as often as it may."""
        return float(DISTANCE / special.ndtri(float(lower_bound(HITS, N, share * alpha)) - BELOW))

    excluded = EXCLUSION_SHARE if mode.rule == "interval" else 1.0
    sigma, router = at_worst(0.5 if mode.rule == "multiscale" else 1.0), at_worst(excluded)
    middle = at_worst(excluded * (1 - RIVAL_SHARE) if mode.route == "mode" else excluded)
    far = FAR / STEP
    label = Scene("label", 153, 25, (far,), (102.5, 102.5), (sigma, 2 * sigma), 1.0)
    if mode.rule == "multiscale":
        return [Scene("label", 153, 25, (far,), (102.5, 102.5), (sigma / 2, sigma), 1.0)]
    found = [label, Scene("even label", 153, 25, (far,), (152.5, 152.5), (sigma, 2 * sigma), 1.0)]
    if mode.rule != "single":
        found += [
            Scene("route", 153, 100, (150.5,), (-far, far), (4 * router, 8 * router), router),
            Scene("even route", 153, 102, (102.5,), (102.5, -far), (sigma, 2 * sigma), 1.0),
            Scene(
                "middle of three",
                153,
                100,
                (-far, 150.5),
                (far, -far, far),
                (2 * middle, 4 * middle, 8 * middle),
                middle,
            ),
        ]
    return found


class ClosedForm:
    """Votes of the half-spaces themselves, without a network."""

    xp: Any = np

    def __init__(self, scene: Scene, bundle: Bundle) -> None:
        self._cuts: dict[BaseModel, tuple[int, tuple[float, ...]]] = {
            bundle.router[0]: (1, tuple(c * STEP for c in scene.router)),
            **{m: (0, (c * STEP,)) for m, c in zip(bundle.classifiers, scene.classes, strict=True)},
        }

    def takes_sigma(self, model: BaseModel) -> bool:
        return False

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        axis, cuts = self._cuts[model]
        return np.asarray(np.searchsorted(cuts, batch[:, 0, 0, axis], side="right"), np.int64)

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started:
        return Lanes(1).start(len(batch), lambda rows: self.votes(model, batch[rows], sigma, width))


def modes() -> list[Mode]:
    """Every rule x route x budget x engine x noise mode; multiscale knows fixed budgets only."""
    generators = [g for g in GENERATORS if g != "MKL" or find_spec("mkl_random")]
    noises = [Noise(m, g) for m in ("float", "lattice") for g in generators]
    noises += [Noise(m, shared=True) for m in ("float", "lattice")]
    ways = [(*rule, budget) for rule, budget in product(RULES, BUDGETS)] + [("multiscale", "mode", "fixed")]
    return [Mode(*way, engine, noise) for way, engine, noise in product(ways, ENGINES, noises)]


def noise_name(noise: Noise) -> str:
    return f"{noise.mode}, {noise.generator}" + (", shared" if noise.shared else "")
