"""How often do certificates claim more than is true? Counted on networks whose exact radius is known.

Half-space toys (tests/support/toys.py) under every rule, route, budget, engine and noise mode, placed at the worst
case: their true vote probabilities lie just below a Clopper-Pearson bound, so that the claim that bounds the radius
fails as often as its share of alpha allows. Resumable: one line a mode in the results file.

    python scripts/coverage_statistics.py --results build/coverage.jsonl --out docs/coverage.md --force
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.files import check_free
from dualsmooth.runtime.noise import streams as noise_module
from dualsmooth.runtime.noise.streams import GENERATORS, Noise, Seed
from dualsmooth.runtime.smoothing.sampler import Job, Sampler, VotingEngine
from dualsmooth.runtime.statistics import budgets as budgets_module
from dualsmooth.runtime.statistics.bounds import Array, lower_bound
from dualsmooth.runtime.statistics.certification import Terms, certification, settle
from dualsmooth.runtime.statistics.rules.plan import EXCLUSION_SHARE, RIVAL_SHARE

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
toys = importlib.import_module("toys")

N = 150
HITS = 140
"""The worst case is just below the bound that so many of N votes prove."""
BELOW = 1e-5
"""So far below: more than what rounding a radius down takes away."""
STEP = 1 / 255
DISTANCE = 50.5 * STEP
"""Images lie on the lattice Z/255 and cuts between its points, so that rounding to the lattice moves no vote."""
FAR = 3000.5 * STEP
LARGER = 1.1
"""Control: radii that are so much larger than certified."""

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
        return ", ".join((self.rule, self.route, self.budget, self.engine, _noise_name(self.noise)))


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
            bundle.estimator: (1, tuple(c * STEP for c in scene.router)),
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
            terms = smoother.terms(alpha=alpha, budget=BUDGETS[mode.budget], rule=rule, route=mode.route)
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


def _noise_name(noise: Noise) -> str:
    return f"{noise.mode}, {noise.generator}" + (", shared" if noise.shared else "")


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
        engines=by("engine", lambda m: m.engine), noises=by("noise", lambda m: _noise_name(m.noise)),
    )  # fmt: skip


def read_results(path: Path, settings: dict[str, Any]) -> dict[str, Counter[str]]:
    """Modes that an earlier run finished."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
    if any(row["settings"] != settings for row in rows):
        raise ds.InputError(f"{path} holds counts of other settings; choose another --results")
    return {row["mode"]: Counter(row["found"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="certificates a mode")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("build/coverage.jsonl"))
    parser.add_argument("--out", type=Path, help="write the page here (default: standard output)")
    parser.add_argument("--force", action="store_true", help="write over --out")
    args = parser.parse_args()
    if args.out:
        check_free(args.out, args.force)
    for name in ("lower_bound", "upper_bound", "kt_lower"):
        setattr(budgets_module, name, remembered(getattr(budgets_module, name)))
    noise_module._BLOCK = 1 << 12  # small blocks of shared noise: each certificate makes its own
    settings = {"count": args.count, "alpha": args.alpha, "seed": args.seed}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    results, every = read_results(args.results, settings), modes()
    with open(args.results, "a", encoding="utf-8") as file:
        for mode in every:
            if str(mode) not in results:
                results[str(mode)] = found = count_errors(mode, args.alpha, args.count, args.seed)
                file.write(json.dumps({"mode": str(mode), "found": found, "settings": settings}) + "\n")
                file.flush()
                print(f"{len(results)}/{len(every)} {mode}: {dict(found)}", file=sys.stderr, flush=True)
    text = page(results, args.alpha)
    if args.out:
        args.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
