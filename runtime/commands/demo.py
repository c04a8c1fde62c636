"""`dualsmooth demo`: certify real test images with the bundle that ships in the package."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands.options import engine_of, engine_options, examples, sampling_of, sampling_options
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.report import Curve, conditions, html_report, plot_curves
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.smoother import load
from dualsmooth.runtime.statistics.budgets import Adaptive

DEFAULT_OUT = Path("build/demo")
"""The demo's own folder, where it may write over what it wrote before."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth demo",
        "dualsmooth demo --images 50 --budget fixed:2000 --out build/small --force",
    )
    parser.add_argument("--images", type=int, default=20, help="how many of the shipped test images (default 20)")
    parser.add_argument("--out", type=Path, help=f"folder for the plot and the report (default {DEFAULT_OUT})")
    parser.add_argument("--force", action="store_true", help="write over a plot and a report that exist in --out")
    engine_options(parser)
    sampling_options(parser, Adaptive(10_000, 0.0))


def run(args: argparse.Namespace) -> int:
    run_demo(
        args.out or DEFAULT_OUT,
        force=args.out is None or args.force,
        count=args.images,
        engine=engine_of(args),
        sampling=sampling_of(args),
    )
    return 0


def run_demo(out: Path, *, force: bool, count: int, engine: dict[str, Any], sampling: dict[str, Any]) -> None:
    """Certify the first `count` shipped images, print a line for each, write a plot and a report into `out`.

    Raises `InputError`, without `force` also where they exist.
    """
    plot_file, page_file = out / "certified-accuracy.png", out / "report.html"
    for file in (plot_file, page_file):
        check_free(file, force)
    dataset = load_dataset(f"npz:{SHIPPED_IMAGES}")
    if not 1 <= count <= len(dataset):
        raise InputError(f"--images {count}; expected 1 to {len(dataset)}")
    smoother = load(SHIPPED_BUNDLE, **engine)
    names = smoother.bundle.classes
    dataset = dataset.fitted(names, smoother.bundle.input_shape)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}; choose another with --out") from error
    print(f"{count} Fashion-MNIST test images, sigmas {smoother.bundle.sigmas}, budget {sampling['budget']}")
    print(f"each certificate holds with probability {confidence(sampling['alpha'])}\n")
    head = (
        f"{'true label':<12} {'label':<12} {'sigma':>5} {'route R':>8} {'class R':>8} {'certified R':>11} {'passes':>7}"
    )
    print(head, "-" * len(head), sep="\n")
    start = time.perf_counter()
    results: list[Result] = []
    certificates = smoother.certify_many(dataset.images[:count], **sampling)
    last = start
    for index, (truth, c) in enumerate(zip(dataset.labels, certificates, strict=False)):
        label = "abstained" if c.label is None else names[c.label]
        mark = "" if c.label is None or c.label == truth else "  wrong"
        radii = (shown(r, 3) for r in (c.route_radius, c.class_radius, c.radius))
        figures = "{:5g} {:>8} {:>8} {:>11} {:7d}".format(c.sigma, *radii, c.passes)
        print(f"{names[truth]:<12} {label:<12} {figures}{mark}", flush=True)
        now = time.perf_counter()
        results.append(Result(index, int(truth), "fashion-mnist", max(0.0, now - last), c))
        last = now
    seconds = time.perf_counter() - start
    run = Curve.of(results, name=sampling["rule"], source="the demo's images, shipped with the package")
    plot = plot_curves(
        [run],
        plot_file,
        title=f"Fashion-MNIST, {count} test images",
        note=conditions([run]),
    )
    page = html_report([run], title=f"Fashion-MNIST, {count} test images", dataset=dataset, classes=names)
    write_atomically(page_file, page)
    print(f"\n{np.mean(run.radii > 0):.0%} of the images are certified with the correct label; {seconds:.1f} s")
    print(f"plot:   {plot}\nreport: {page_file}")
