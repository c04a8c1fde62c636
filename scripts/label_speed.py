"""How fast the estimator's labels are made, against a plain PyTorch loop over the same networks and N, in one run.

dualsmooth train --config configs/fashion-mnist.toml --out runs/fashion-mnist
python scripts/label_speed.py runs/fashion-mnist
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.data import Images, Labels, load_training_data
from dualsmooth.training.labels import label_radii, label_votes, voter_of
from dualsmooth.training.models import Network
from dualsmooth.training.record import load_run
from dualsmooth.training.run import saved_config


def plain_loop(
    networks: list[Network], sigmas: tuple[float, ...], images: Images, labels: Labels, count: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Hits [N,K], one image and level at a time: repeat, add noise, arg max, count."""
    hits = np.zeros((len(images), len(sigmas)), np.int64)
    with torch.no_grad():
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            x = torch.from_numpy(image).float() / 255
            for level, (network, sigma) in enumerate(zip(networks, sigmas, strict=True)):
                batch = x.repeat(count, 1, 1, 1)
                votes = network(batch + sigma * torch.randn_like(batch)).argmax(1)
                hits[row, level] = int((votes == label).sum())
    return hits


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=200, help="per repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run, config = load_run(args.run), saved_config(args.run)
    networks = [network for network in run.classifiers if isinstance(network, Network)]
    if config is None or len(networks) < len(run.sigmas):
        raise InputError(f"{args.run} has no trained classifiers; pass a run that was trained with torch")
    data = load_training_data(config)
    voters = [voter_of(network, data.input_shape) for network in networks]
    raced = dataclasses.replace(config, labels=dataclasses.replace(config.labels, shard=args.images // args.threads))
    full = dataclasses.replace(raced, labels=dataclasses.replace(raced.labels, doubt=0.0))
    seconds: dict[str, list[float]] = {"plain PyTorch loop": [], "every vote": [], "race": []}
    drawn, agree = [], []
    for repeat in range(args.repeats):
        index = np.arange(repeat * args.images, (repeat + 1) * args.images)
        images, labels = data.images[index], data.labels[index]
        seconds["plain PyTorch loop"].append(
            timed(lambda: plain_loop(networks, run.sigmas, images, labels, config.labels.votes))  # noqa: B023
        )
        best = []
        for name, settings in (("every vote", full), ("race", raced)):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                votes = label_votes(Path(folder), data, index, voters, settings, threads=args.threads)
                seconds[name].append(time.perf_counter() - start)
            best.append(label_radii(votes, settings.labels, run.sigmas))
        drawn.append(votes.passes.mean())
        agree.append(np.take_along_axis(best[0], best[1].argmax(1)[:, None], 1)[:, 0] >= best[0].max(1) - 0.05)
    plain = seconds["plain PyTorch loop"]
    print(f"{args.repeats} x {args.images} images, {len(run.sigmas)} levels, N = {config.labels.votes}\n")
    print("| labels by | images a second | against the loop |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(plain, values, strict=True))
        print(f"| {name} | {args.images / statistics.median(values):.0f} | {ratio:.1f}x |")
    share = np.mean(np.concatenate(agree))
    print(f"\nThe race draws {np.mean(drawn):.0f} votes a level. For {share:.1%} of the images, it finds a level whose")
    print("radius is within 0.05 of the best level's when all votes are drawn.")


if __name__ == "__main__":
    main()
