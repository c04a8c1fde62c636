"""How often do certificates claim more than is true? Counted on networks whose exact radius is known.

Half-space toys (tests/support/toys.py) under every rule, route, budget, engine and noise mode, placed at the worst
case: their true vote probabilities lie just below a Clopper-Pearson bound, so that the claim that bounds the radius
fails as often as its share of alpha allows. Resumable: one line a mode in the results file.

    python scripts/coverage_statistics.py --results build/coverage.jsonl --out docs/coverage.md --force
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from coverage_toys import (
    BUDGETS,
    ENGINES,
    HITS,
    STEP,
    ClosedForm,
    Mode,
    N,
    modes,
    noise_name,
    scenes,
    toys,
)  # fmt: skip
from frame import Measurements, add_page, parsed, publish, say
from scipy import stats

import dualsmooth as ds
from dualsmooth.runtime.noise import streams as noise_module
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.sampler import Job, Sampler, VotingEngine
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.statistics.bounds import Array
from dualsmooth.runtime.statistics.budgets import adaptive, budget, decisions, fixed
from dualsmooth.runtime.statistics.certification import certification, settle
from dualsmooth.runtime.statistics.rules.rule import Terms

BOUNDS = [
    (module, name)
    for module in (budget, fixed, adaptive, decisions)
    for name in ("lower_bound", "upper_bound", "kt_lower")
    if hasattr(module, name)
]
"""Where budgets take their bounds from: modules and names."""

LARGER = 1.1
"""Control: radii that are so much larger than certified."""


def count_errors(mode: Mode, alpha: float, count: int, seed: int) -> Counter[str]:
    """Certificates, errors and errors of the control, for each scene, of about `count` certificates of a mode."""
    found: Counter[str] = Counter()
    placed = scenes(mode, alpha)
    for scene in placed:
        with tempfile.TemporaryDirectory() as folder:
            bundle = toys.write_bundle(
                Path(folder) / "toy", sigmas=scene.sigmas, sigma_e=scene.sigma_e,
                estimator_cuts=[c * STEP for c in scene.router], classifier_cuts=[c * STEP for c in scene.classes],
            )  # fmt: skip
            smoother = ds.load(bundle, threads=1)
            voter: VotingEngine = smoother.engine if mode.engine == ENGINES[1] else ClosedForm(scene, smoother.bundle)
            rule = f"single:{scene.sigmas[0]!r}" if mode.rule == "single" else mode.rule
            terms = Settings(alpha, BUDGETS[mode.budget], rule, mode.route).terms(smoother.bundle)
            truths = [scene.truth(label, mode) for label in (0, 1)]
            pixels = smoother.check_image(np.array([[[scene.t, scene.u]]], np.uint8))
            entropy = zlib.crc32(f"{mode} {scene.name}".encode()) << 64 | seed << 32
            jobs = make_jobs(terms, pixels, mode.noise, entropy, -(-count // len(placed)))
            sampler = Sampler(smoother.bundle, voter, batch_size=8192, in_flight=4 if mode.noise.shared else 64)
            for job in sampler.run(jobs):
                outcome = settle(terms, job.tally)
                truth = np.inf if outcome.label is None else truths[outcome.label]
                found[f"{scene.name}: count"] += 1
                found[f"{scene.name}: errors"] += int(outcome.radius > truth)
                found[f"{scene.name}: control"] += int(LARGER * outcome.radius > truth)
    return found


def remembered(bound: Callable[..., Array]) -> Callable[..., Array]:
    """A bound that is computed once for the same arguments: certificates of one toy have few different counts."""
    known: dict[tuple[tuple[tuple[int, ...], bytes], ...], Array] = {}

    def call(*args: npt.ArrayLike) -> Array:
        arrays = [np.asarray(arg, np.float64) for arg in args]
        key = tuple((a.shape, a.tobytes()) for a in arrays)
        if key not in known:
            known[key] = bound(*arrays)
        return known[key].copy()

    return call


def make_jobs(terms: Terms, pixels: npt.NDArray[np.float32], noise: Noise, entropy: int, count: int) -> Iterator[Job]:
    """Independent certificates of one image. Shared noise has an entropy each: failures would be correlated else."""
    for number in range(count):
        tally = terms.tally()
        seed = Seed(entropy + number, 0, True, noise) if noise.shared else Seed(entropy, number, True, noise)
        yield Job(pixels, seed, tally, certification(terms, tally))


def total(found: Counter[str], scene: str = "") -> Counter[str]:
    """Certificates, errors and errors of the control, of one scene or of all."""
    out: Counter[str] = Counter(count=0, errors=0, control=0)
    for key, value in found.items():
        name, _, what = key.partition(": ")
        out[what] += value if scene in ("", name) else 0
    return out


def row(name: str, found: Counter[str], alpha: float) -> str:
    """A markdown row: observed rate with an exact 99 % interval, and the p-value of "above alpha"."""
    test = stats.binomtest(found["errors"], found["count"], alpha, alternative="greater")
    exact = stats.binomtest(found["errors"], found["count"]).proportion_ci(0.99, "exact")
    return (
        f"| {name} | {found['count']:,} | {found['errors']:,} | {100 * found['errors'] / found['count']:.2f} | "
        f"{100 * exact.low:.2f} to {100 * exact.high:.2f} | {test.pvalue:.2g} | "
        f"{100 * found['control'] / found['count']:.1f} |"
    )


HEAD = """| {what} | certificates | errors | % | exact 99 % interval | p (rate > alpha) | % with radii 10 % larger |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""

TEXT = """# Coverage: how often certificates claim too much

Written by `python scripts/coverage_statistics.py`. An **error** is a certificate whose radius is larger than the true
radius of its label. {count:,} certificates at alpha = {alpha:g} of half-space toys, whose true radius is known in
closed form, in {modes} modes: every rule and route x budget x engine (the real ONNX Runtime engine, and votes of the
half-spaces themselves) x noise mode.

The toys are placed at the worst case: true probabilities just below what {hits} of {n} votes prove at the share of
alpha that the bounding claim has. That share is all of alpha for a label at the guessed route (one sigma, and the dual
rules), and for the route under the paper's rule; 80 % for the route under the interval rule (72 % by mode, of three
levels); half for the cascade of two levels. Those are the rates to expect of a fixed budget where label or route bound
the radius, and less elsewhere. Budgets that stop early spend alpha over their looks.

The last column is a control: the share of errors if every radius were 10 % larger.

Of {modes} modes, the smallest p-value of "errs more often than alpha" is {smallest:.2g}; with so many tests at once,
{limit:.1g} would be suspicious (1 % / {modes}). Modes that are: {above}.

## By rule, route and budget

{ways}

## By what bounds the radius, fixed budgets

{scenes}

## By engine

{engines}

## By noise

{noises}
"""


def page(results: dict[str, Counter[str]], alpha: float) -> str:
    """The document, from the counts of all modes."""
    every = modes()

    def table(what: str, groups: dict[str, list[Counter[str]]]) -> str:
        rows = [row(name, sum(counts, Counter()), alpha) for name, counts in groups.items()]
        return "\n".join([HEAD.format(what=what), *rows])

    def by(what: str, key: Callable[[Mode], str]) -> str:
        groups: dict[str, list[Counter[str]]] = {}
        for mode in every:
            groups.setdefault(key(mode), []).append(total(results[str(mode)]))
        return table(what, groups)

    fixed: dict[str, list[Counter[str]]] = {}
    for mode in every:
        for scene in scenes(mode, alpha) if mode.budget == "fixed" else ():
            counts = total(results[str(mode)], scene.name)
            fixed.setdefault(f"{mode.rule}, {mode.route}: {scene.name}", []).append(counts)
    totals = [total(results[str(mode)]) for mode in every]
    p = [stats.binomtest(t["errors"], t["count"], alpha, alternative="greater").pvalue for t in totals]
    return TEXT.format(
        count=sum(t["count"] for t in totals), alpha=alpha, modes=len(every), hits=HITS, n=N, smallest=min(p),
        limit=0.01 / len(every), above=sum(value < 0.01 / len(every) for value in p),
        ways=by("rule, route, budget", lambda m: f"{m.rule}, {m.route}, {m.budget}"),
        scenes=table("rule, route: what bounds the radius", fixed),
        engines=by("engine", lambda m: m.engine), noises=by("noise", lambda m: noise_name(m.noise)),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="certificates a mode")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("build/coverage.jsonl"))
    add_page(parser)
    args = parsed(parser)
    for module, name in BOUNDS:
        setattr(module, name, remembered(getattr(module, name)))
    noise_module._BLOCK = 1 << 12  # small blocks of shared noise: each certificate makes its own
    settings = {"count": args.count, "alpha": args.alpha, "seed": args.seed}
    done, ways = Measurements(args.results, "mode", settings), modes()
    for mode in ways:
        if str(mode) not in done:
            found = count_errors(mode, args.alpha, args.count, args.seed)
            done.add({"mode": str(mode), "found": found})
            say(f"{len(done)}/{len(ways)} {mode}: {dict(found)}")
    publish(page({mode: Counter(row["found"]) for mode, row in done.rows.items()}, args.alpha), args.page)


if __name__ == "__main__":
    main()
