"""The curve of certified accuracy by decisions only, against the full run: the same points from how many fewer passes?

Certifies Fashion-MNIST test images (below 8,000) with the shipped bundle twice, on the same noise streams: with
`Fixed(N)`, and with `AtRadii(radii, 2 N, 200)`, which stops as soon as "certified at r?" is settled for every r: most
images take a few thousand passes, so that the few that are close to one of the radii may take more than N. Resumable.

    python scripts/int8_accuracy.py --work build/int8
    python scripts/at_radii.py --bundle build/int8/int8 --step 32 --results build/at-radii \\
        --out docs/at-radii.md --force
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from frame import USABLE, add_page, every, parsed, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.commands.evaluate import DECIDED_ON
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.noise.streams import parse_noise
from dualsmooth.runtime.statistics.accuracy import RADII, certified_accuracy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--results", type=Path, required=True, help="folder for the two results files")
    parser.add_argument("--passes", type=int, default=100_000, help="N of the full run")
    parser.add_argument("--cap", type=int, help="most passes of a stream in a decision (default: 2 N)")
    add_page(parser)
    parser.add_argument("--step", type=int, default=80, help="every STEP-th test image")
    parser.add_argument("--below", type=int, default=8000, help="only images with a smaller index")
    parser.add_argument("--noise", type=parse_noise, default=ds.Noise())
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20261122)
    args = parsed(parser)
    args.results.mkdir(parents=True, exist_ok=True)
    smoother = ds.load(args.bundle, threads=args.threads)
    dataset = load_dataset("fashion-mnist")
    budgets: dict[str, ds.Budget] = {
        "decisions": ds.AtRadii(RADII, args.cap or 2 * args.passes, DECIDED_ON),
        "full": ds.Fixed(args.passes),
    }
    runs: dict[str, list[Result]] = {}
    for name, budget in budgets.items():
        out = args.results / f"{name}.jsonl"
        indices = range(0, min(args.below, USABLE), args.step)
        evaluate(
            smoother, dataset, out, indices=indices, budget=budget, seed=args.seed, noise=args.noise,
            progress=every(5, f"{name}: "),
        )  # fmt: skip
        wanted = set(indices)
        runs[name] = [r for r in load_results(out) if r.index in wanted]
    passes = {name: np.mean([r.certificate.passes for r in results]) for name, results in runs.items()}
    accuracy = {name: certified_accuracy(certified_radii(results), RADII) for name, results in runs.items()}
    gaps = 100 * (accuracy["decisions"] - accuracy["full"])
    rows = [
        f"| {name} | " + " | ".join(f"{100 * a:.1f}" for a in accuracy[name]) + f" | {passes[name]:,.0f} |"
        for name in ("full", "decisions")
    ]
    text = "\n".join(
        [
            "# The curve by decisions only",
            "",
            "The same curve from two budgets: one measures every radius, the other only decides at those of the table. "
            "A cell",
            "is the share of images (in %) whose label is right and certified at L2 radius r or more.",
            f"{len(runs['full'])} Fashion-MNIST test images, the shipped bundle ({smoother.bundle.precision}, "
            f"manifest {smoother.bundle.manifest_sha256[:16]}…), alpha = 0.001:",
            f"`{budgets['full']}` against `{budgets['decisions']}`. Written by `python scripts/at_radii.py`.",
            "",
            "| certified accuracy (%) at r = | " + " | ".join(f"{r:g}" for r in RADII) + " | passes an image |",
            "| --- |" + " ---: |" * (len(RADII) + 1),
            *rows,
            "",
            f"{passes['full'] / passes['decisions']:.1f} times fewer passes; the curves differ by at most "
            f"{np.abs(gaps).max():.2f} points, {np.abs(gaps).mean():.2f} on average.",
            "",
        ]
    )
    publish(text, args.page)


if __name__ == "__main__":
    main()
