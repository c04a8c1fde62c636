"""How fast the estimator's labels are made, against a plain PyTorch loop over the same networks and N, in one run.

dualsmooth train --config configs/fashion-mnist.toml --out runs/fashion-mnist
python scripts/label_speed.py runs/fashion-mnist --page docs/labels.md
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
import numpy.typing as npt
import torch
from frame import publish

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import LabelConfig
from dualsmooth.training.data import Images, Labels, load_training_data
from dualsmooth.training.networks.network import Network
from dualsmooth.training.run.record import load_run
from dualsmooth.training.stages.labels import Floats, label_radii, label_votes, voter_of
from dualsmooth.training.stages.train import saved_config

VOTES, MARGINS, REFERENCE = 100, (8, 12, 32), 2_000
PAGE = """# The estimator's labels: how fast, and how good

How many images a second get their labels, and how far the radii behind these are from the truth: the fewer passes an
image costs, the more images the estimator learns from.
{repeats} x {images} Fashion-MNIST training images, {levels} levels, the networks of a run of
`configs/fashion-mnist.toml`; all ways timed in turn, 2 cores. The error is the mean distance, in input units, from the
radius that {reference} votes measure (without a margin for chance), over all images and levels. Written by
`python scripts/label_speed.py`.

| labels from | images a second | against the loop | mean error of the radii |
| --- | ---: | ---: | ---: |
{rows}

The loop repeats an image, adds noise, and counts arg maxima, one image and level at a time. Votes are bounded at
alpha = 0.001, as in the paper, so their radii lie low, above all where 100 votes cannot certify more. A race stops
sampling levels that cannot be an image's best one, and says little about these.
"""


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
    parser.add_argument("--images", type=int, default=100, help="per repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", type=Path, help="write the table there, as Markdown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run, config = load_run(args.run), saved_config(args.run)
    networks = [network for network in run.classifiers if isinstance(network, Network)]
    if config is None or len(networks) < len(run.sigmas):
        raise InputError(f"{args.run} has no trained classifiers; pass a run that was trained with torch")
    data = load_training_data(config)
    voters = [voter_of(network, data.input_shape) for network in networks]
    shard = args.images // args.threads
    ways = {
        f"every one of {VOTES} votes": LabelConfig(votes=VOTES, doubt=0.0, shard=shard),
        f"race, at most {VOTES} votes": LabelConfig(votes=VOTES, shard=shard),
    }
    for passes in MARGINS:
        ways[f"margins of {passes} passes"] = LabelConfig(votes=passes, radii="margins", doubt=0.0, shard=shard)
    reference = LabelConfig(votes=REFERENCE, alpha=0.5, doubt=0.0, shard=shard)
    loop = f"plain PyTorch loop, {VOTES} votes"
    seconds: dict[str, list[float]] = {loop: [], **{name: [] for name in ways}}
    errors: dict[str, list[Floats]] = {name: [] for name in ways}
    for repeat in range(args.repeats):
        index = np.arange(repeat * args.images, (repeat + 1) * args.images)
        images, labels = np.asarray(data.images[index]), data.labels[index]
        seconds[loop].append(timed(lambda: plain_loop(networks, run.sigmas, images, labels, VOTES)))  # noqa: B023

        def radii(settings: LabelConfig, index: npt.NDArray[np.int64] = index) -> Floats:
            one = dataclasses.replace(config, labels=settings)
            with tempfile.TemporaryDirectory() as folder:
                drawn = label_votes(Path(folder), data, index, voters, one, threads=args.threads)
            return label_radii(drawn, settings, run.sigmas)

        truth = radii(reference)
        for name, settings in ways.items():
            start = time.perf_counter()
            found = radii(settings)
            seconds[name].append(time.perf_counter() - start)
            errors[name].append(np.abs(found - truth))
    lines = []
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[loop], values, strict=True))
        error = f"{np.concatenate(errors[name]).mean():.3f}" if name in errors else ""
        lines.append(f"| {name} | {args.images / statistics.median(values):.0f} | {ratio:.1f}x | {error} |")
    page = PAGE.format(
        repeats=args.repeats,
        images=args.images,
        levels=len(run.sigmas),
        reference=f"{REFERENCE:,}",
        rows="\n".join(lines),
    )
    publish(page, args.page)


if __name__ == "__main__":
    main()
