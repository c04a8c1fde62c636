"""What a user gets: certificates an hour, what a thousand of them cost, and how both grow with image size and N."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, repeat, takewhile
from statistics import mean
from typing import Any

import numpy as np
from bench_throughput import batch_of, timed
from frame import Measurements, cores

import dualsmooth as ds
from dualsmooth.export import bench as networks
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands.bench import ours
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.noise.streams import Seed, parse_noise
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.statistics.votes import Purpose, Request, Requests, Stage, Stream, Tally

BUDGETS = ("fixed:10000", "adaptive:10000:0", "at-radius:0.5:10000", "fixed:1000")
GROWING = ("fixed:{}", "adaptive:{}:0", "at-radius:0.5:{}")
SIZES = (1_000, 10_000, 100_000)
SHIPPED = "shipped-cnn"
COMPANY = 10
"""Times `args.seconds` that a replay lasts: few certificates would not fill each other's batches as they do in use."""
Looks = list[tuple[str, list[int]]]
"""The streams of one certificate, and the sizes of their looks."""


def user(args: argparse.Namespace, measured: Measurements) -> list[str]:
    """Both tables. Votes of the shipped bundle say what a certificate takes; the other networks, whose weights are
    random, draw as many passes, asked for in the same looks."""

    def shipped(text: str, images: int) -> dict[str, Any]:
        found: dict[str, Any] = measured.found(
            f"{images} certificates, {text}", lambda: certificates(args, text, images)
        )
        return found

    lines = [
        "| network | image | precision | budget | passes | certificates an hour | core-hours per 1,000 | "
        f"{args.currency} per 1,000 |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name in args.networks:
        image = "x".join(map(str, networks.SPECS[name].input_shape))
        for precision in args.precisions:
            for text in BUDGETS:
                found = shipped(text, args.images)
                passes, rate = found["passes"], found["rate"]
                if (name, precision) != (SHIPPED, "fp32"):
                    rate = measured.found(
                        f"certificates of {name} {precision}, {text}",
                        partial(replayed, args, name, precision, found["looks"]),
                    )
                lines.append(f"| {name} | {image} | {precision} | {text} | {row(passes, rate, args.price)} |")
    lines += [
        "\nWith N, the shipped network in fp32:\n",
        f"| budget | passes | certificates an hour | core-hours per 1,000 | {args.currency} per 1,000 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for form in GROWING:
        for size in (size for size in SIZES if size <= args.passes):
            found = shipped(form.format(size), max(2, args.images * min(SIZES[1], size) // size))
            lines.append(f"| {form.format(size)} | {row(found['passes'], found['rate'], args.price)} |")
    return lines


def row(passes: float, rate: float, price: float) -> str:
    """Cells of a certificate of so many passes at so many passes a second on all cores."""
    hourly = 3600 * rate / passes
    core_hours = cores() * 1000 / hourly
    return f"{passes:,.0f} | {hourly:,.0f} | {core_hours:.3g} | {core_hours * price:.2g}"


def certificates(args: argparse.Namespace, text: str, images: int) -> dict[str, Any]:
    """Mean passes, passes a second and looks of certificates of the first `images` test images, in company."""
    chosen, budget = load_dataset(f"npz:{SHIPPED_IMAGES}").images[:images], ds.parse_budget(text)
    with ds.load(SHIPPED_BUNDLE, threads=args.threads, batch_size=args.batch) as smoother:
        smoother.certify(chosen[0], budget=ds.Fixed(args.batch))
        start = time.perf_counter()
        made = list(smoother.certify_many(chosen, budget=budget, noise=parse_noise(args.noise)))
        seconds = time.perf_counter() - start
    passes = [certificate.passes for certificate in made]
    return {"passes": mean(passes), "rate": sum(passes) / seconds, "looks": [looks_of(c.tally) for c in made]}


def looks_of(tally: Tally) -> Looks:
    return [("/".join(map(str, s)), [int(look.sum()) for look in looks]) for s, looks in tally.looks.items()]


def replayed(args: argparse.Namespace, name: str, precision: str, stated: Sequence[Looks]) -> float:
    """Passes a second of a network on the looks of other certificates, in company: of as many images, again and again,
    as `COMPANY` * `args.seconds` have room for; of the beginning of one where it would take longer."""
    bundle = networks.bundle(name, precision, args.work)
    noise = parse_noise(args.noise)
    with ds.load(bundle.path, threads=args.threads, batch_size=batch_of(name, args)) as smoother:
        loop = ours(smoother, noise)
        loop(smoother.batch_size)
        room = max(100, round(timed(loop, 2 * smoother.batch_size) * COMPANY * args.seconds))
        sums = accumulate(total(looks) for looks in chain.from_iterable(repeat(stated)))
        count = max(1, len(list(takewhile(lambda passes: passes <= room, sums))))
        image = np.random.default_rng(0).integers(0, 256, bundle.input_shape).astype(np.float32) / np.float32(255)
        seed = smoother.suited(Seed.make(None, noise), image)
        jobs = [
            Job(image, seed.at(i), Tally(len(bundle.classes), len(bundle.sigmas)), again(stated[i % len(stated)], room))
            for i in range(count)
        ]
        sampler = Sampler(bundle, smoother.engine, batch_size=smoother.batch_size)
        start = time.perf_counter()
        passes = sum(job.tally.total() for job in sampler.run(jobs))
        return passes / (time.perf_counter() - start)


def total(looks: Looks) -> int:
    return sum(sizes[-1] for _, sizes in looks)


def again(looks: Looks, most: int) -> Requests:
    """Ask for these looks, each stream's up to its share of `most` passes."""
    share = max(1, most // len(looks))
    for name, sizes in looks:
        stage, level, purpose = name.split("/")
        for size in sizes:
            yield [Request(Stream(Stage(stage), int(level), Purpose(purpose)), min(size, share))]


def settings(args: argparse.Namespace, machine: str) -> Mapping[str, Any]:
    """What the figures of one page share; measurements made otherwise are not mixed with them."""
    names = ("threads", "batch", "noise", "seconds", "turns", "images", "passes")
    return {name: getattr(args, name) for name in names} | {"machine": machine}
