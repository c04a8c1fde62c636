"""What Ray costs an image: the same evaluation locally and on one Ray worker, with networks that cost next to nothing.

Both run on one core in turns; the start of the cluster and of the worker is left out. The figure is an upper end: with
real networks the time of the passes is far larger.

    python scripts/ray_overhead.py --images 400 --turns 5
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from frame import helper

import dualsmooth as ds
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.evaluation.evaluate import Local, Workers
from dualsmooth.runtime.evaluation.ray_workers import RayWorkers
from dualsmooth.runtime.smoothing.settings import Settings

toys = helper("toys")


def seconds(workers: Workers, dataset: Dataset, settings: Settings) -> float:
    """Seconds from the first finished image to the last, for an image."""
    start, count = 0.0, 0
    for _ in workers.certify(dataset, range(len(dataset)), settings):
        start, count = (start or time.perf_counter()), count + 1
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--passes", type=int, default=1_000)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (args.images, 1, 1, 2), np.uint8)
    dataset = Dataset("toy", images, np.zeros(args.images, np.int64))
    settings = Settings(budget=ds.Fixed(args.passes), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        bundle = toys.write_bundle(
            Path(folder) / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
        )
        local = Local(ds.load(bundle, threads=1))
        times: dict[str, list[float]] = {"local": [], "ray": []}
        with RayWorkers(bundle, workers=1, block=args.block) as ray:
            for _ in range(args.turns):
                times["local"].append(seconds(local, dataset, settings))
                times["ray"].append(seconds(ray, dataset, settings))
    ours, theirs = np.median(times["local"]), np.median(times["ray"])
    print(
        f"{args.images} images of 2 pixels, N = {args.passes:,}, blocks of {args.block}, medians of {args.turns} turns"
    )
    print(f"local {1e3 * ours:.2f} ms an image, one Ray worker {1e3 * theirs:.2f} ms: {theirs / ours:.2f} times")


if __name__ == "__main__":
    main()
