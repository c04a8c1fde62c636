"""Certified accuracy of the fp32 and the int8 bundle, side by side, and how much faster int8 is.

Exports an int8 bundle of the shipped one (calibrated on noisy training images), certifies with it the Fashion-MNIST
test images of the committed votes of the fp32 bundle (500, every 16th of the first 8,000; N = 10,000, alpha = 0.001),
and compares. Then times both on the same images, in turns. Resumable: run the same command again after a kill.

    python scripts/int8_accuracy.py --work build/int8 --out docs/int8.md --force
    python scripts/int8_accuracy.py --work build/int8-trial --images 10
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from frame import VOTES, add_page, cores, every, parsed, publish

import dualsmooth as ds
from dualsmooth.export import Pictures
from dualsmooth.export.sources import export_source
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.engine.instruction_set import has_int8
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.statistics.accuracy import RADII, certified_accuracy

ROUNDS = 9
TIMED = ds.Fixed(2_000)


def quantised(work: Path) -> Path:
    """The int8 version of the bundle that ships, in the folder `work`, made where it is not there."""
    bundle = work / "int8"
    if not bundle.exists():
        images = load_dataset("fashion-mnist", split="train").images
        pictures = Pictures.choose("fashion-mnist (training images)", images)
        export_source(SHIPPED_BUNDLE, bundle, command=" ".join(sys.argv), precision="int8", pictures=pictures)
    return bundle


def ratio_of_speeds(fp32: ds.Smoother, int8: ds.Smoother, images: npt.NDArray[np.uint8]) -> float:
    """Passes a second of int8 over those of fp32: the median of rounds, each of which times both."""
    ratios = []
    for turn in range(ROUNDS):
        rates = {}
        for name, smoother in (("fp32", fp32), ("int8", int8)) if turn % 2 else (("int8", int8), ("fp32", fp32)):
            start = time.perf_counter()
            passes = sum(c.passes for c in smoother.certify_many(images, budget=TIMED, seed=turn))
            rates[name] = passes / (time.perf_counter() - start)
        ratios.append(rates["int8"] / rates["fp32"])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder for the int8 bundle and its results")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20261122, help="as of the votes: the same noise")
    add_page(parser)
    args = parsed(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    fp32, int8 = (ds.load(path, threads=args.threads) for path in (SHIPPED_BUNDLE, quantised(args.work)))
    votes = load_results(VOTES)
    if {r.certificate.artefact.manifest_sha256 for r in votes} != {fp32.bundle.manifest_sha256}:
        raise InputError(f"{VOTES} is about another bundle than the shipped one; run scripts/compare_rules.py again")
    votes = [votes[i] for i in np.arange(args.images) * len(votes) // args.images]
    budget, indices = votes[0].certificate.terms.budget, [r.index for r in votes]
    dataset, out = load_dataset("fashion-mnist"), args.work / "int8.jsonl"
    evaluate(int8, dataset, out, indices=indices, budget=budget, seed=args.seed, progress=every(10))
    quick = {r.index: r for r in load_results(out)}
    curves = {
        "fp32": certified_radii(votes, rule="interval"),
        "int8": certified_radii([quick[index] for index in indices]),
    }
    gaps = 100 * (certified_accuracy(curves["int8"]) - certified_accuracy(curves["fp32"]))
    worst = int(np.argmin(gaps))
    speed = ratio_of_speeds(fp32, int8, dataset.images[indices[:8]])
    cpu = f"{cores()} CPU cores, {'with' if has_int8() else 'without'} int8 dot products"
    text = f"""# Certified accuracy in int8

{args.images} Fashion-MNIST test images, the shipped bundle and its int8 version (calibrated on noisy training images),
{budget}, alpha = 0.001, rule interval. Written by `python scripts/int8_accuracy.py`.

{markdown_table(curves)}

int8 against fp32: {gaps[worst]:+.1f} points at r = {RADII[worst]:g}, where it loses most. It does {speed:.2f} times
as many passes a second (whole loop, noise included; median of {ROUNDS} rounds that time both; {cpu}).
"""
    publish(text, args.page)


if __name__ == "__main__":
    main()
