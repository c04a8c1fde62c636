"""Certified accuracy of every rule on the same votes: the table in the README.

Certifies 500 Fashion-MNIST test images (every 16th of the first 8,000) with the shipped bundle, every level sampled in
full, and compares the rules offline. Resumable; about 10 million passes.

    python scripts/compare_rules.py --results build/all-levels.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dualsmooth as ds
from dualsmooth.runtime.curves import certified_radii, expand_rules
from dualsmooth.runtime.datasets import load_dataset
from dualsmooth.runtime.demo import SHIPPED_BUNDLE
from dualsmooth.runtime.evaluate import evaluate
from dualsmooth.runtime.report import markdown_table, plot_curves
from dualsmooth.runtime.results import Result, read_results

RULES = ("single", "oracle", "multiscale", "paper", "interval")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--results", type=Path, required=True, help="results file, made or resumed")
    parser.add_argument("--passes", type=int, default=5_000)
    parser.add_argument("--step", type=int, default=16)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    smoother = ds.load(args.bundle)

    def progress(result: Result, done: int, total: int) -> None:
        if done % 10 == 0:
            print(f"{done}/{total}", file=sys.stderr, flush=True)

    evaluate(
        smoother,
        load_dataset("fashion-mnist"),
        args.results,
        indices=range(0, 8000, args.step),
        budget=ds.Fixed(args.passes),
        seed=args.seed,
        all_levels=True,
        progress=progress,
    )
    results = read_results(args.results)
    rules = expand_rules(RULES, smoother.bundle.sigmas)
    curves = {rule: certified_radii(results, rule=rule) for rule in rules}
    curves["interval, mode route"] = certified_radii(results, rule="interval", route="mode")
    passes = sum(r.certificate.passes for r in results)
    seconds = sum(r.seconds for r in results)
    print(f"{len(results)} images, N = {args.passes:,}, alpha = 0.001, {passes / seconds:,.0f} passes a second\n")
    print(markdown_table(curves))
    if args.plot:
        plot_curves(curves, args.plot, title=f"Fashion-MNIST, {len(results)} test images, N = {args.passes:,}")


if __name__ == "__main__":
    main()
