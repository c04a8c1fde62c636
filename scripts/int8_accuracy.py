"""Certified accuracy of a bundle in float32 and in int8, side by side, and how much faster int8 is.

Fashion-MNIST ships in float32: an int8 bundle is made of it (calibrated on noisy training images), and certifies the
test images of the committed votes with the same noise. CIFAR-10 ships in int8: `--fp32` is the bundle that was exported
from its run without quantising, and both certify anew. Then both are timed on the same images, in turns. Resumable.

    python scripts/int8_accuracy.py --out docs/int8.md --force
    dualsmooth export runs/cifar10 --out build/cifar10-fp32
    python scripts/int8_accuracy.py --study cifar10 --fp32 build/cifar10-fp32 --images 200 --passes 1000 \\
        --out docs/int8.md --force
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from compare_rules import STUDIES, Study
from frame import add_page, every, machine, parsed, publish_part

import dualsmooth as ds
from dualsmooth.export import Pictures
from dualsmooth.export.sources import export_source
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.statistics.accuracy import certified_accuracy

HEAD = """# Certified accuracy in int8

What quantising to int8 costs in certified accuracy (the share of test images, in %, that are right and certified at L2
radius r or more), and what it gains in speed. Both networks vote on the same noisy copies. Written by the commands that
are named.
"""
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


def certified(
    smoother: ds.Smoother, study: Study, indices: list[int], out: Path, args: argparse.Namespace
) -> list[Result]:
    """Results for these images: the committed votes where they are of this bundle and N, else new ones in `out`."""
    budget = ds.Fixed(args.passes)
    found = load_results(study.votes)
    known = found[0].certificate
    if (known.artefact.manifest_sha256, known.terms.budget) != (smoother.bundle.manifest_sha256, budget):
        evaluate(
            smoother, load_dataset(study.data), out, indices=indices, budget=budget, seed=args.seed, progress=every(10)
        )
        found = load_results(out)
    by_index = {result.index: result for result in found}
    return [by_index[index] for index in indices]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES, default="fashion-mnist", help="a bundle that ships")
    parser.add_argument("--fp32", type=Path, metavar="BUNDLE", help="the same networks in float32, if int8 ships")
    parser.add_argument("--work", type=Path, default=Path("build/int8"), help="folder for the int8 bundle and results")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--passes", type=int, default=10_000, help="N")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20261122, help="as of the committed votes: the same noise")
    add_page(parser)
    args = parsed(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    study = STUDIES[args.study]
    ships = ds.read_bundle(study.bundle).precision
    if (ships == "int8") != bool(args.fp32):
        raise InputError(f"{args.study} ships in {ships}; pass --fp32 BUNDLE where that is int8, and only there")
    paths = {"fp32": args.fp32 or study.bundle, "int8": study.bundle if args.fp32 else quantised(args.work)}
    indices = [study.images[i] for i in np.arange(args.images) * len(study.images) // args.images]
    smoothers = {name: ds.load(path, threads=args.threads) for name, path in paths.items()}
    curves = {
        name: certified_radii(
            certified(smoother, study, indices, args.work / f"{args.study}-{name}-{args.passes}.jsonl", args),
            rule="interval",
        )
        for name, smoother in smoothers.items()
    }
    gaps = 100 * (certified_accuracy(curves["int8"], study.radii) - certified_accuracy(curves["fp32"], study.radii))
    worst = int(np.argmin(gaps))
    speed = ratio_of_speeds(smoothers["fp32"], smoothers["int8"], load_dataset(study.data).images[indices[:8]])
    text = f"""`python scripts/int8_accuracy.py --study {args.study}`; {machine("onnxruntime")}.
{args.images} test images, N = {args.passes:,}, alpha = 0.001, rule interval; {ships} is what ships.

{markdown_table(curves, study.radii)}

int8 against fp32: {gaps[worst]:+.1f} points at r = {study.radii[worst]:g}, where it loses most, and {speed:.2f} times
as many passes a second (whole loop, noise included; median of {ROUNDS} rounds that time both).
"""
    publish_part(HEAD, {study.title: text.strip()}, [each.title for each in STUDIES.values()], args.page)


if __name__ == "__main__":
    main()
