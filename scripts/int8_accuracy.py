"""Certified accuracy of the fp32 and the int8 bundle, side by side, and how much faster int8 is.

Exports an int8 bundle (calibrated on noisy training images), certifies the same Fashion-MNIST test images with both,
and compares. Resumable: run the same command again after a kill. The default is 500 images (every 16th of the first
8,000), N = 10,000, alpha = 0.001: some ten million passes a bundle.

    python scripts/int8_accuracy.py --work build/int8
    python scripts/int8_accuracy.py --work build/int8-trial --images 10
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import dualsmooth as ds
from dualsmooth.export import Pictures
from dualsmooth.export.sources import export_source
from dualsmooth.runtime.curves import RADII, certified_accuracy, certified_radii
from dualsmooth.runtime.datasets import load_dataset
from dualsmooth.runtime.demo import SHIPPED_BUNDLE
from dualsmooth.runtime.evaluate import evaluate
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.results import Result, read_results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--bundle", type=Path, default=SHIPPED_BUNDLE, help="the fp32 bundle (default: that which ships)"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the int8 bundle and the results")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--passes", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20261123)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    quantised = args.work / "int8"
    if not quantised.exists():
        images = load_dataset("fashion-mnist", split="train").images
        pictures = Pictures.choose("fashion-mnist (training images)", images)
        export_source(args.bundle, quantised, command=" ".join(sys.argv), precision="int8", pictures=pictures)
    indices = [int(i) for i in np.arange(args.images) * 8000 // args.images]
    results: dict[str, list[Result]] = {}
    for name, path in (("fp32", args.bundle), ("int8", quantised)):
        out = args.work / f"{name}.jsonl"

        def progress(result: Result, done: int, total: int, name: str = name) -> None:
            if done % 10 == 0:
                print(f"{name}: {done}/{total}", file=sys.stderr, flush=True)

        evaluate(
            ds.load(path, threads=args.threads), load_dataset("fashion-mnist"), out, indices=indices,
            budget=ds.Fixed(args.passes), seed=args.seed, progress=progress,
        )  # fmt: skip
        results[name] = [r for r in read_results(out) if r.index in set(indices)]
    curves = {name: certified_radii(found) for name, found in results.items()}
    rates = {name: sum(r.certificate.passes for r in f) / sum(r.seconds for r in f) for name, f in results.items()}
    gaps = 100 * (certified_accuracy(curves["int8"]) - certified_accuracy(curves["fp32"]))
    worst = int(np.argmin(gaps))
    print(f"{args.images} Fashion-MNIST test images, N = {args.passes:,}, alpha = 0.001, rule interval\n")
    print(markdown_table(curves))
    print(f"\nint8 against fp32: {gaps[worst]:+.1f} points at r = {RADII[worst]:g}, where it loses most")
    print(
        f"int8 is {rates['int8'] / rates['fp32']:.2f} times as fast (passes a second of the whole loop, same machine)"
    )


if __name__ == "__main__":
    main()
