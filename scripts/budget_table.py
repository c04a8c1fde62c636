"""Passes spent and accuracy kept by every budget, on the same real votes: the tables in docs/budgets.md.

Votes are drawn once per image and stream and kept in a folder (resumable); each budget then reads the prefix that it
asks for, so that all budgets see the same votes and only their decisions differ.

    python scripts/budget_table.py --votes build/votes --out docs/budgets.md --force
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from frame import USABLE, add_page, machine, parsed, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.forecast import plan
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.statistics.certification import certification, settle
from dualsmooth.runtime.statistics.votes import ESTIMATOR, Stream, Tally

ALPHA = 1e-3
SEED = 20261122
RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
BATCH = 256


@dataclass
class Spent:
    """What one budget did on all images."""

    radii: npt.NDArray[np.float64]
    passes: npt.NDArray[np.int64]
    """[images, 2]: estimator and classifier."""
    results: list[Result]

    @property
    def total(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.passes.sum(1))

    def accuracy(self, r: float) -> float:
        return float(np.mean((self.radii >= r) & (self.radii > 0)))

    @property
    def acr(self) -> float:
        return float(np.mean(np.maximum(self.radii, 0)))


class VoteBank:
    """The votes of one image, drawn on demand and kept in a file."""

    def __init__(self, smoother: ds.Smoother, image: npt.NDArray[np.uint8], index: int, folder: Path) -> None:
        self.smoother, self.index, self.file = smoother, index, folder / f"{index}.npz"
        self.image = smoother.check_image(image)
        self.votes: dict[Stream, npt.NDArray[np.uint8]] = {}
        if self.file.exists():
            with np.load(self.file) as saved:
                for name in saved.files:
                    stage, level, purpose = name.split("-")
                    self.votes[Stream(stage, int(level), purpose)] = saved[name]
        self.changed = False

    def counts(self, stream: Stream, until: int, width: int) -> npt.NDArray[np.int64]:
        have = self.votes.get(stream, np.zeros(0, np.uint8))
        if len(have) < until:
            have = self._draw(stream, -(-max(until, 2 * len(have)) // BATCH) * BATCH, width)
        return np.bincount(have[:until], minlength=width).astype(np.int64)

    def _draw(self, stream: Stream, until: int, width: int) -> npt.NDArray[np.uint8]:
        """Draw a stream again from its start up to `until` votes."""
        bundle = self.smoother.bundle
        model, sigma = bundle.voter(stream)
        generator = Seed(SEED, self.index, fixed=True).generator(stream)
        buffer = np.empty((BATCH, *bundle.input_shape), np.float32)
        parts = []
        for _ in range(until // BATCH):
            add_noise(generator, self.image, sigma, buffer)
            parts.append(self.smoother.engine.votes(model, buffer, sigma, width).astype(np.uint8))
        self.votes[stream] = np.concatenate(parts)
        self.changed = True
        return self.votes[stream]

    def save(self) -> None:
        if self.changed:
            named = {"-".join(map(str, stream)): votes for stream, votes in self.votes.items()}
            temporary = self.file.with_suffix(".part.npz")
            np.savez_compressed(temporary, **named)  # type: ignore[arg-type]
            temporary.replace(self.file)
            self.changed = False


def spend(
    smoother: ds.Smoother, banks: list[VoteBank], labels: list[int], budget: ds.Budget, rule: str = "interval"
) -> Spent:
    """Run one budget over all images."""
    terms = Settings(ALPHA, budget, rule).terms(smoother.bundle)
    radii, passes, results = [], [], []
    for bank, label in zip(banks, labels, strict=True):
        tally: Tally = terms.tally()
        for requests in certification(terms, tally):
            for stream, until in requests:
                tally.record(stream, bank.counts(stream, until, tally.width(stream)))
        outcome = settle(terms, tally)
        radii.append(outcome.correct_radius(label))
        estimator = sum(tally.passes(s) for s in tally.looks if s.stage == ESTIMATOR)
        passes.append((estimator, tally.total() - estimator))
        seed = Seed(SEED, bank.index, fixed=True)
        certificate = ds.Certificate(outcome, terms, tally, seed, smoother.artefact(bank.image), "")
        results.append(Result(bank.index, label, "fashion-mnist", 0.0, certificate))
    return Spent(np.array(radii), np.array(passes, np.int64), results)


def control(
    smoother: ds.Smoother, banks: list[VoteBank], labels: list[int], mean: float, most: int
) -> tuple[int, Spent]:
    """The Fixed(n) whose mean passes are nearest to `mean` (bisection over n)."""
    low, high = 10, most
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        spent = spend(smoother, banks, labels, ds.Fixed(middle))
        low, high = (middle, high) if spent.total.mean() < mean else (low, middle)
    return high, spend(smoother, banks, labels, ds.Fixed(high))


def cost_ratio(smoother: ds.Smoother) -> float:
    """Seconds of an estimator pass over seconds of a classifier pass, medians of alternating batches."""
    bundle = smoother.bundle
    batch = np.random.default_rng(0).random((BATCH, *bundle.input_shape), np.float32)
    times: dict[str, list[float]] = {"e": [], "c": []}
    for _ in range(40):
        for name, model, width in (
            ("e", bundle.router[0], len(bundle.sigmas)),
            ("c", bundle.classifiers[0], len(bundle.classes)),
        ):
            start = time.perf_counter()
            smoother.engine.votes(model, batch, 0.5, width)
            times[name].append(time.perf_counter() - start)
    return float(np.median(times["e"]) / np.median(times["c"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--votes", type=Path, required=True, help="folder for the votes")
    parser.add_argument("--step", type=int, default=80, help="every STEP-th of the first 8000 test images")
    parser.add_argument("--sizes", default="10000,100000")
    add_page(parser)
    args = parsed(parser)
    args.votes.mkdir(parents=True, exist_ok=True)
    smoother = ds.load(args.bundle)
    dataset = load_dataset("fashion-mnist")
    indices = range(0, USABLE, args.step)
    labels = [int(dataset.labels[i]) for i in indices]
    sizes = [int(n) for n in args.sizes.split(",")]
    banks = []
    start = time.perf_counter()
    for number, index in enumerate(indices, 1):
        bank = VoteBank(smoother, dataset.images[index], index, args.votes)
        spend(smoother, [bank], [0], ds.Fixed(max(sizes)))
        for sigma in smoother.bundle.sigmas:
            spend(smoother, [bank], [0], ds.Fixed(min(sizes)), rule=f"single:{sigma}")
        bank.save()
        banks.append(bank)
        print(f"{number}/{len(indices)} images drawn, {time.perf_counter() - start:.0f} s", flush=True)
    ratio = cost_ratio(smoother)
    lines = [
        "# Budgets: passes spent, accuracy kept",
        "",
        "What each budget saves, and what it loses by that. Passes are forward passes of all networks for one image.",
        "",
        f"Made by `scripts/budget_table.py --step {args.step} --sizes {args.sizes}`: {len(banks)} Fashion-MNIST test "
        f"images (every {args.step}th of the first 8,000), manifest {smoother.bundle.manifest_sha256[:16]}…, "
        f"rule interval, alpha {ALPHA:g}, {machine('onnxruntime')}, the same votes for every budget. An estimator pass "
        f"costs {ratio:.2f} of a classifier pass (measured in the same run).",
    ]
    for n in sizes:
        lines += adaptive_table(smoother, banks, labels, n, ratio)
    lines += decision_table(smoother, banks, labels, max(sizes))
    lines += plan_table(smoother, banks, labels, sizes)
    for bank in banks:
        bank.save()
    publish("\n".join(lines) + "\n", args.page)


def adaptive_table(smoother: ds.Smoother, banks: list[VoteBank], labels: list[int], n: int, ratio: float) -> list[str]:
    """Adaptive against Fixed(n), each tolerance beside its control; and the overhead over one sigma."""
    fixed = spend(smoother, banks, labels, ds.Fixed(n))
    lines = [
        "",
        f"## Adaptive against Fixed({n:,})",
        "",
        "The control is the Fixed(n) that spends as many passes on average. Points: certified accuracy lost against "
        f"Fixed({n:,}), mean over r = {', '.join(f'{r:g}' for r in RADII)}.",
        "",
        "| budget | mean passes | median | saving | ACR kept (%) | control | points lost | points lost, control |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| Fixed({n:,}) | {fixed.total.mean():,.0f} | {np.median(fixed.total):,.0f} | 1.00x | 100 | | 0 | |",
    ]

    def lost(spent: Spent) -> float:
        return 100 * float(np.mean([fixed.accuracy(r) - spent.accuracy(r) for r in RADII]))

    for tolerance in (0.0, 0.01, 0.02, 0.05):
        spent = spend(smoother, banks, labels, ds.Adaptive(n, tolerance))
        at, plain = control(smoother, banks, labels, spent.total.mean(), n)
        lines.append(
            f"| Adaptive({n:,}, {tolerance:g}) | {spent.total.mean():,.0f} | {np.median(spent.total):,.0f} "
            f"| {fixed.total.mean() / spent.total.mean():.2f}x | {100 * spent.acr / fixed.acr:.2f} "
            f"| Fixed({at:,}): {100 * plain.acr / fixed.acr:.2f} | {lost(spent):.2f} | {lost(plain):.2f} |"
        )
    single = n + 100
    weighted = {
        "Fixed, paper": spend(smoother, banks, labels, ds.Fixed(n), rule="paper"),
        "Fixed, interval": fixed,
        "Adaptive 0, paper": spend(smoother, banks, labels, ds.Adaptive(n), rule="paper"),
        "Adaptive 0, interval": spend(smoother, banks, labels, ds.Adaptive(n)),
    }
    parts = [
        f"{name} {(s.passes[:, 0] * ratio + s.passes[:, 1]).mean() / single:.2f}x (ACR {s.acr:.3f})"
        for name, s in weighted.items()
    ]
    lines += ["", f"Cost over one sigma at Fixed({n:,}), passes weighted by cost: " + ", ".join(parts) + "."]
    return lines


def decision_table(smoother: ds.Smoother, banks: list[VoteBank], labels: list[int], n: int) -> list[str]:
    """AtRadius(r, n) against the decisions of Fixed(n)."""
    fixed = spend(smoother, banks, labels, ds.Fixed(n))
    lines = [
        "",
        f'## "Certified at r?": AtRadius(r, {n:,}) against Fixed({n:,})',
        "",
        "What it takes to answer yes or no at one radius r, and how often the answer is that of the full run.",
        f"Certified: the share of images whose label is right and certified at r or more. Fixed({n:,}) spends "
        f"{fixed.total.mean():,.0f} passes on average.",
        "",
        "| r | mean passes | median | saving | certified (%) | Fixed (%) | same decision (%) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in RADII:
        spent = spend(smoother, banks, labels, ds.AtRadius(r, n))
        same = np.mean((spent.radii >= r) == (fixed.radii >= r))
        lines.append(
            f"| {r:g} | {spent.total.mean():,.0f} | {np.median(spent.total):,.0f} "
            f"| {fixed.total.mean() / spent.total.mean():.0f}x | {100 * spent.accuracy(r):.1f} "
            f"| {100 * fixed.accuracy(r):.1f} | {100 * same:.1f} |"
        )
    return lines


def plan_table(smoother: ds.Smoother, banks: list[VoteBank], labels: list[int], sizes: list[int]) -> list[str]:
    """Forecasts from a pilot of 1,000 passes beside what those passes really gave."""
    pilot = spend(smoother, banks, labels, ds.Fixed(1_000))
    lines = ["", "## Planning: forecasts from a pilot at Fixed(1,000), and what came", ""]
    lines += [
        "What a few votes foretell of many. A cell: the share of images (in %) that is right and certified at r.",
        "",
    ]
    curves = {"pilot, measured": pilot.radii}
    notes = []
    for forecast in plan(pilot.results, sizes):
        real = spend(smoother, banks, labels, ds.Fixed(forecast.n))
        curves[f"N = {forecast.n:,}, forecast"] = forecast.radii
        curves[f"N = {forecast.n:,}, measured"] = real.radii
        notes.append(f"N = {forecast.n:,}: {forecast.formula_acr:.3f}")
    lines += [markdown_table(curves), "", f"ACR by the formula of arXiv 2404.17371: {'; '.join(notes)}."]
    return lines


if __name__ == "__main__":
    main()
