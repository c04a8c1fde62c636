"""Random step networks on the line: base models whose smoothed behaviour and true radius are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from dualsmooth.runtime.statistics.routes import quantile_of


@dataclass
class Steps:
    """A base model on the line: class `classes[i]` between `edges[i - 1]` and `edges[i]`, of `count` classes."""

    edges: np.ndarray
    classes: np.ndarray
    count: int

    @classmethod
    def random(cls, rng: np.random.Generator, count: int, scale: float) -> Steps:
        """Cells in arbitrary order (unions of intervals), or nested and ordered, or a single step."""
        kind = rng.integers(3)
        if kind == 0:
            cells = int(rng.integers(count, 3 * count + 1))
            classes = rng.integers(0, count, cells)
        elif kind == 1:
            classes = np.arange(count) if rng.random() < 0.5 else np.arange(count)[::-1]
        else:
            classes = rng.permutation(count)[:2]
        edges = np.sort(rng.normal(0, scale * rng.choice([0.3, 1.0, 3.0]), len(classes) - 1))
        return cls(edges, classes, count)

    def probabilities(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Exact P(vote = c) at each x under Gaussian noise: [len(x), count]."""
        below = special.ndtr((self.edges - x[:, None]) / sigma)
        below = np.hstack([np.zeros((len(x), 1)), below, np.ones((len(x), 1))])
        return np.diff(below) @ np.eye(self.count)[self.classes]


@dataclass
class Line:
    """A dual smoothed classifier on the line."""

    estimator: Steps
    classifiers: list[Steps]
    sigmas: tuple[float, ...]
    sigma_e: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Line:
        levels, classes = int(rng.integers(2, 6)), int(rng.integers(2, 5))
        sigmas = tuple(np.sort(rng.uniform(0.1, 1.5, levels)).tolist())
        sigma_e = float(rng.uniform(0.2, 2.0))
        experts = [Steps.random(rng, classes, sigmas[-1]) for _ in sigmas]
        if rng.random() < 0.5:  # levels that mostly agree, so that the interval rule can pass the router's flips
            experts = [experts[0] if rng.random() < 0.7 else expert for expert in experts]
        return cls(Steps.random(rng, levels, sigma_e), experts, sigmas, sigma_e)

    def routes(self, x: np.ndarray, kind: str) -> np.ndarray:
        votes = self.estimator.probabilities(x, self.sigma_e)
        return votes.argmax(1) if kind == "mode" else (votes.cumsum(1) >= quantile_of(kind)).argmax(1)

    def labels(self, x: np.ndarray, kind: str) -> np.ndarray:
        """What the dual smoothed classifier says at each x."""
        routes = self.routes(x, kind)
        out = np.empty(len(x), np.int64)
        for level in np.unique(routes):
            here = routes == level
            out[here] = self.classifiers[level].probabilities(x[here], self.sigmas[level]).argmax(1)
        return out

    def exact(self, claim: object, x: float = 0.0) -> float:
        """The probability that a claim of a plan bounds, at x; just below it, to stay clear of rounding."""
        stage, level, event = claim.stage, claim.level, list(claim.event)  # type: ignore[attr-defined]
        model, sigma = (
            (self.estimator, self.sigma_e) if stage == "estimator" else (self.classifiers[level], self.sigmas[level])
        )
        votes = model.probabilities(np.array([x]), sigma)[0]
        p = float(1 - np.delete(votes, event).max()) if claim.rivals else float(votes[event].sum())  # type: ignore[attr-defined]
        return min(max(p - 1e-13, 0.0), 1 - 1e-12)
