"""How often each budget certifies falsely, and what it costs: exact dynamic programming, no sampling.

    python scripts/exact_budgets.py [--alpha 0.001] [--horizon 10000]

Prints a markdown table beside the anchors in the design notes. "False" is the probability that the bound ever exceeds
p0 when p = p0; "passes" is the mean number of votes until it does when p = q > p0 (the horizon where it does not).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from dualsmooth.runtime.statistics.bounds import kt_log_evidence, lower_bound
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Budget, Fixed, geometric_looks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rejects = Callable[[Ints], npt.NDArray[np.bool_]]

COLUMNS = ((0.5, (0.55, 0.6, 0.75, 0.95)), (0.8413, (0.9, 0.95, 0.99)))
ANCHORS = {
    "KT test after every vote": ("7.9e-4 / 9.0e-4", "1916 / 442 / 62 / 16", "574 / 133 / 57"),
    "union-bound Clopper–Pearson, looks at 1.1^k": ("5.0e-5 / 2.2e-5", "2423 / 585 / 86 / 22", "825 / 208 / 96"),
    "equal shares, looks at 1 %, 10 %, 100 %": ("8.0e-4 / 8.3e-4", "6492 / 960 / 140 / 100", "1134 / 608 / 103"),
}


def fewest_successes(rejects: Rejects, looks: Ints) -> Ints:
    """For each look (a number of votes) the fewest successes that reject; one more than the votes where none do.

    `rejects` maps successes at every look to decisions, and must be monotone in the successes.
    """
    low, high = np.full(len(looks), -1, np.int64), looks + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        hit = rejects(np.clip(middle, 0, looks)) & (middle >= 0) & (middle <= looks)
        low, high = np.where(hit | (high - low <= 1), low, middle), np.where(hit, middle, high)
    return high


def budget_needs(budget: Budget, alpha: float, p0: float) -> tuple[Ints, Ints]:
    """The looks of a budget, and the fewest successes at each for which its bound exceeds p0."""
    looks = np.asarray(budget.looks, np.int64)

    def rejects(successes: Ints) -> npt.NDArray[np.bool_]:
        return np.array([budget.lower(k, look, alpha) > p0 for look, k in enumerate(successes)], np.bool_)

    return looks, fewest_successes(rejects, looks)


def first_rejection(looks: Sequence[int] | Ints, needs: Sequence[int] | Ints, p: float) -> Floats:
    """Probability, for each look, that the successes needed are there for the first time; p is that of a vote."""
    alive, before = np.ones(1), 0
    out = np.zeros(len(looks))
    for i, (look, need) in enumerate(zip(looks, needs, strict=True)):
        step = int(look) - before
        if step == 1:
            alive = np.append(alive, 0.0) * (1 - p) + np.append(0.0, alive) * p
        else:
            alive = np.convolve(alive, stats.binom.pmf(np.arange(step + 1), step, p))
        out[i] = alive[int(need) :].sum()
        alive, before = alive[: int(need)], int(look)
    return out


def false_probability(looks: Sequence[int] | Ints, needs: Sequence[int] | Ints, p: float) -> float:
    """Probability that the successes needed are there at any look."""
    return float(first_rejection(looks, needs, p).sum())


def expected_passes(looks: Sequence[int] | Ints, needs: Sequence[int] | Ints, p: float) -> float:
    """Mean number of votes until the first rejection; all votes where there is none."""
    first = first_rejection(looks, needs, p)
    return float(first @ np.asarray(looks) + (1 - first.sum()) * looks[-1])


def kt_needs(alpha: float, p0: float, horizon: int) -> tuple[Ints, Ints]:
    """The mixture test looked at after every vote: the fewest successes whose evidence reaches ln(1 / alpha)."""
    looks = np.arange(1, horizon + 1)
    return looks, fewest_successes(lambda k: np.asarray(kt_log_evidence(k, looks, p0) >= -math.log(alpha)), looks)


def clopper_needs(sizes: Sequence[int], shares: Floats, p0: float) -> tuple[Ints, Ints]:
    """Clopper–Pearson at each of `sizes`, with `shares` of alpha."""
    looks = np.asarray(sizes, np.int64)
    return looks, fewest_successes(lambda k: np.asarray(lower_bound(k, looks, shares) > p0), looks)


def equal_shares(sizes: Sequence[int], alpha: float) -> Floats:
    return np.full(len(sizes), alpha / len(sizes))


def rows(alpha: float, horizon: int) -> dict[str, Callable[[float], tuple[Ints, Ints]]]:
    """Name of each way to look, and its looks and thresholds as a function of p0."""
    dense = geometric_looks(horizon, first=10, ratio=1.1)
    three = (horizon // 100, horizon // 10, horizon)
    fixed, adaptive, at_radius = Fixed(horizon), Adaptive(horizon), AtRadius(0.5, horizon)
    peeking = np.full(len(adaptive.looks), alpha)
    return {
        f"`Fixed({horizon})`": lambda p0: budget_needs(fixed, alpha, p0),
        f"`Adaptive({horizon})`, any tolerance": lambda p0: budget_needs(adaptive, alpha, p0),
        f"`AtRadius(r, {horizon})`": lambda p0: budget_needs(at_radius, alpha, p0),
        "KT test after every vote": lambda p0: kt_needs(alpha, p0, horizon),
        "union-bound Clopper–Pearson, looks at 1.1^k": lambda p0: clopper_needs(dense, equal_shares(dense, alpha), p0),
        "equal shares, looks at 1 %, 10 %, 100 %": lambda p0: clopper_needs(three, equal_shares(three, alpha), p0),
        "**wrong**: all of alpha at each look of `Adaptive`": lambda p0: clopper_needs(adaptive.looks, peeking, p0),
    }


def table(alpha: float, horizon: int) -> str:
    heads = ["false at p0 = " + " / ".join(str(p0) for p0, _ in COLUMNS)]
    heads += [f"passes, p0 = {p0}, q = " + " / ".join(f"{q:g}" for q in qs) for p0, qs in COLUMNS]
    lines = ["| rule | " + " | ".join(heads) + " |", "| --- " * 4 + "|"]
    for name, needs_at in rows(alpha, horizon).items():
        found = [(*needs_at(p0), p0, qs) for p0, qs in COLUMNS]
        cells = [" / ".join(f"{false_probability(looks, needs, p0):.1e}" for looks, needs, p0, _ in found)]
        cells += [" / ".join(f"{expected_passes(looks, needs, q):.0f}" for q in qs) for looks, needs, _, qs in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if name in ANCHORS and (alpha, horizon) == (1e-3, 10_000):
            lines.append("| anchor | " + " | ".join(ANCHORS[name]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=1e-3)
    parser.add_argument("--horizon", type=int, default=10_000)
    options = parser.parse_args()
    print(f"alpha = {options.alpha:g}, horizon {options.horizon}\n")
    print(table(options.alpha, options.horizon))


if __name__ == "__main__":
    main()
