"""How often a radius claims too much, by enumeration of all votes: where alpha goes (docs/mathematics.md, theorem 4).

For K levels, n votes a stage and level, every guess of the route and every level that may bound the radius, the true
probabilities are put where the claims of that level fail as often as they can: just below a bound that a count of votes
gives. The error is then summed over *all* vote counts of all streams, without sampling.

    python scripts/exact_shares.py --out docs/exact-shares.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.statistics.bounds import lower_bound
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.rules import edition_1, rule_named
from dualsmooth.runtime.statistics.rules.plan import Claim, Plan
from dualsmooth.runtime.statistics.rules.planned import PlannedRule
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR

Floats = npt.NDArray[np.float64]
N, ALPHA = 14, 0.1
FAR = 100.0
"""Noise level of the classifiers that must not bound the radius."""
JUST_BELOW = 1 - 1e-9
Planner = Callable[[PlannedRule, Terms, int, int], Plan]


class World(NamedTuple):
    """True probabilities: of the estimator's votes [K], and of the classifier's at each level [K, classes]; the noise
    levels; and the guesses that the shares rest on."""

    router: Floats
    labels: Floats
    sigmas: tuple[float, ...]
    guess: int

    def plan(self, planner: Planner, rule: str, kind: str) -> Plan:
        found = rule_named(rule, self.sigmas)
        assert isinstance(found, PlannedRule)
        terms = Terms(self.sigmas, 1.0, self.labels.shape[1], ALPHA, found, kind, Fixed(N))
        return planner(found, terms, self.guess, 0)


def as_it_is(rule: PlannedRule, terms: Terms, route: int, label: int) -> Plan:
    return rule.plan(terms, route, label)


def union_bound(rule: PlannedRule, terms: Terms, route: int, label: int) -> Plan:
    """The shares of version 1: all claims hold together."""
    old = edition_1.rule_of(rule)
    assert isinstance(old, PlannedRule)
    return old.plan(terms, route, label)


def all_of_alpha_for_each_claim(rule: PlannedRule, terms: Terms, route: int, label: int) -> Plan:
    """Wrong: a level's claims share its alpha, since any of them can be the false one."""
    plan = rule.plan(terms, route, label)
    return replace(plan, claims=tuple(replace(claim, alpha=ALPHA) for claim in plan.claims))


PLANNERS: dict[str, Planner] = {
    "version 1 (union bound)": union_bound,
    "version 2": as_it_is,
    "wrong: alpha for each claim": all_of_alpha_for_each_claim,
}


@cache
def compositions(n: int, parts: int) -> npt.NDArray[np.int64]:
    """All counts of n votes over so many classes."""
    if parts == 1:
        return np.array([[n]])
    return np.array([[k, *rest] for k in range(n + 1) for rest in compositions(n - k, parts - 1).tolist()])


def probability(claim: Claim, world: World) -> float:
    """The true probability that a claim bounds."""
    votes = world.router if claim.stage == ESTIMATOR else world.labels[claim.level]
    return float(1 - np.delete(votes, claim.event).max()) if claim.rivals else float(votes[list(claim.event)].sum())


def error(plan: Plan, world: World, n: int = N) -> float:
    """The exact probability that the certified radius is above the true min over levels of max(e_s, A_s)."""
    exact = np.array([min(max(probability(claim, world), 0.0), 1 - 1e-15) for claim in plan.claims])
    truth = plan.radius(exact) * (1 + 1e-12) + 1e-12
    streams = sorted({(claim.stage, claim.level) for claim in plan.claims})
    chances: Floats = np.ones(1)
    reaches: Floats = np.zeros((1, len(world.sigmas)))
    for stage, level in streams:
        votes = world.router if stage == ESTIMATOR else world.labels[level]
        counts = compositions(n, len(votes))
        weights = stats.multinomial.pmf(counts, n, votes)
        bounds = [_bounds(plan, stage, level, row) for row in counts]
        if stage == ESTIMATOR:
            chances = np.asarray(weights, np.float64)
            reaches = np.array([plan.reaches(b) for b in bounds])
    above = reaches > truth
    for s in range(len(world.sigmas)):
        passed = 0.0
        if (CLASSIFIER, s) in streams:
            counts = compositions(n, world.labels.shape[1])
            weights = stats.multinomial.pmf(counts, n, world.labels[s])
            radii = np.array([plan.reaches(_bounds(plan, CLASSIFIER, s, row))[s] for row in counts])
            passed = float(weights[radii > truth].sum())
        unrouted = not plan.routed and s != plan.route
        chances = chances * np.where(above[:, s] | unrouted, 1.0, passed)
    return float(chances.sum())


def _bounds(plan: Plan, stage: str, level: int, counts: npt.NDArray[np.int64]) -> Floats:
    mine = [(claim.stage, claim.level) == (stage, level) for claim in plan.claims]
    return np.array(
        [float(lower_bound(c.hits(counts), counts.sum(), c.alpha)) if m else 0.0 for c, m in zip(plan.claims, mine)]  # noqa: B905
    )


def worlds(planner: Planner, count: int, rule: str, kind: str) -> Iterator[World]:
    """Worst cases: one level bounds the radius, and its claims are as hard as they can be, all at once. With many
    levels not every guess and every count is tried."""
    hits = range(8, N + 1) if count <= 3 else range(9, N + 1, 2)
    for guess, level in product(range(count) if count <= 3 else (0, count // 2), range(count)):
        base = World(np.eye(count)[guess], np.tile([1.0, 0.0], (count, 1)), (FAR,) * count, guess)
        claims = base.plan(planner, rule, kind).claims
        label = [c for c in claims if (c.stage, c.level) == (CLASSIFIER, level)]
        labels = base.labels.copy()
        if level == guess or count == 1:
            for k in hits:
                p = float(lower_bound(k, N, label[0].alpha)) * JUST_BELOW
                if p > 0.5:
                    labels[level] = p, 1 - p
                    yield base._replace(labels=labels.copy(), sigmas=_one(count, level, 1.0))
            continue
        facing = _facing(claims, kind, guess, level, count)
        for k in hits:
            q = float(lower_bound(k, N, facing.alpha)) * JUST_BELOW
            if q <= 0.5:
                continue
            router = np.zeros(count)
            router[guess], router[level] = q, 1 - q
            reach = float(special.ndtri(q))
            if not label:
                yield base._replace(router=router)
            for j in hits if label else ():
                p = float(lower_bound(j, N, label[0].alpha)) * JUST_BELOW
                if p > 0.5:
                    labels[level] = p, 1 - p
                    sigma = reach / float(special.ndtri(p))
                    yield base._replace(router=router, labels=labels.copy(), sigmas=_one(count, level, sigma))


def _one(count: int, level: int, sigma: float) -> tuple[float, ...]:
    return tuple(sigma if s == level else FAR for s in range(count))


def _facing(claims: tuple[Claim, ...], kind: str, guess: int, level: int, count: int) -> Claim:
    allowed = set(range(level)) if level > guess else set(range(level + 1, count))
    allowed = {guess} if kind == "mode" else allowed
    facing = [claim for claim in claims if claim.stage == ESTIMATOR and set(claim.event) <= allowed]
    return max(facing, key=lambda claim: (len(claim.event), claim.alpha))


def rivals(planner: Planner) -> Iterator[World]:
    """One level and three classes, the top class and its rival as hard as they can be."""
    base = World(np.ones(1), np.eye(3)[:1], (1.0,), 0)
    claims = base.plan(planner, "single:1.0", "mode").claims
    for k, j in product(range(5, N + 1), range(N + 1)):
        top = float(lower_bound(k, N, claims[0].alpha)) * JUST_BELOW
        rival = 1 - float(lower_bound(N - j, N, claims[-1].alpha)) * JUST_BELOW
        if top > rival and 0 < 1 - top - rival <= rival:
            yield base._replace(labels=np.array([[top, rival, 1 - top - rival]]))


def worst(planner: Planner, count: int, rule: str, kind: str) -> float:
    """The largest error over the worst cases of K levels."""
    alone = isinstance(rule_named(rule, (1.0,)), Single)
    found = rivals(planner) if alone else worlds(planner, count, rule, kind)
    return max(error(world.plan(planner, rule, kind), world) for world in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/exact-shares.md"))
    parser.add_argument("--levels", default="1,2,3,5")
    args = parser.parse_args()
    counts = [int(k) for k in args.levels.split(",")]
    lines = [
        "# Where alpha goes: exact errors",
        "",
        "How often a certified radius is above the true one, at the worst case that was found, by enumeration of every",
        f"possible vote count (n = {N} votes a stream, alpha = {ALPHA:g}; no sampling). Up to alpha: sound. Near it:",
        "nothing is given away. `wrong` is a plausible mistake. `python scripts/exact_shares.py` makes this page; the",
        "theorem is in [mathematics.md](mathematics.md).",
        "",
        "| rule, route | shares | " + " | ".join(f"K = {k}" for k in counts) + " |",
        "| --- | --- |" + " ---: |" * len(counts),
    ]
    for rule, kind in (("interval", "median"), ("interval", "mode"), ("paper", "median"), ("paper", "mode")):
        for name, planner in PLANNERS.items():
            errors = [worst(planner, count, rule, kind) for count in counts]
            lines.append(f"| {rule}, {kind} | {name} | " + " | ".join(f"{e:.4f}" for e in errors) + " |")
            print(lines[-1], flush=True)
    for name, planner in PLANNERS.items():
        lines.append(
            f"| one sigma, three classes | {name} | {worst(planner, 1, 'single:1.0', 'mode'):.4f} |"
            + " |" * len(counts[1:])
        )
        print(lines[-1], flush=True)
    write_atomically(args.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
