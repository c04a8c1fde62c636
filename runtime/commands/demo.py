"""`dualsmooth demo`: certify real test images with the bundle that ships in the package."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands.options import (
    engine_of,
    engine_options,
    examples,
    program,
    sampling_of,
    sampling_options,
    typed,
)
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.report import Curve, html_report, print_accuracy
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import Settings
from dualsmooth.runtime.smoothing.smoother import Smoother, load
from dualsmooth.runtime.statistics.accuracy import RADII
from dualsmooth.runtime.statistics.budgets import Adaptive
from dualsmooth.runtime.statistics.rules.single import Single

DEFAULT_OUT = Path("build/demo")
"""The demo's own folder, where it may write over what it wrote before."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth demo",
        "dualsmooth demo --images 50 --budget fixed:2000 --out build/small --force",
    )
    parser.add_argument("--images", type=int, default=20, help="how many of the shipped test images (default 20)")
    parser.add_argument("--out", type=Path, help=f"folder for the report (default {DEFAULT_OUT})")
    parser.add_argument("--force", action="store_true", help="write over a report that exists in --out")
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
    """Certify the first `count` shipped images, print a line for each, and write a report into `out`, with each noise
    level alone beside the rule; beside it the first image, for the commands that are named at the end.

    Raises `InputError`, without `force` also where they exist.
    """
    page_file, image_file = out / "report.html", out / "image.npy"
    for file in (page_file, image_file):
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
    routed = _certified(smoother, dataset, count, sampling, table := _Table(names))
    table.legend()
    print("\nThe rule beside each noise level alone, on the same images:")
    curves = [*_baselines(smoother, dataset, count, sampling), routed]
    at = RADII if routed.decided is None else routed.decided
    print_accuracy({curve.name: curve.radii for curve in curves}, at)
    title = f"Fashion-MNIST, {count} test images"
    write_atomically(page_file, html_report(curves, title=title, dataset=dataset, classes=names))
    array = io.BytesIO()
    np.save(array, dataset.images[0])
    write_atomically(image_file, array.getvalue())
    print(f"\nreport: {page_file}\n\n{_next(out, image_file)}")


class _Table:
    """Prints a line an image."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        head = f"{'true label':<12} {'label':<12} {'sigma':>5} {'route R':>8} {'class R':>8} {'certified R':>11} "
        head += f"{'passes':>7}"
        print(head, "-" * len(head), sep="\n")

    def line(self, truth: int, c: Certificate) -> None:
        label = "abstained" if c.label is None else self._names[c.label]
        mark = "" if c.label is None or c.label == truth else "  wrong"
        radii = (shown(r, 3) for r in (c.route_radius, c.class_radius, c.radius))
        figures = "{:5g} {:>8} {:>8} {:>11} {:7d}".format(c.sigma, *radii, c.passes)
        print(f"{self._names[truth]:<12} {label:<12} {figures}{mark}", flush=True)

    @staticmethod
    def legend() -> None:
        print("\nroute R: a smaller change leaves the image at its noise level; class R: it leaves this level's label.")
        print("certified R: it leaves the label of all; more than route R where other levels certify the same label.")


def _certified(
    smoother: Smoother, dataset: Dataset, count: int, sampling: dict[str, Any], table: _Table | None = None
) -> Curve:
    meter = Meter()
    certificates = smoother.certify_with(dataset.images[:count], Settings.of(**sampling), meter=meter)
    results: list[Result] = []
    for index, (truth, certificate) in enumerate(zip(dataset.labels, certificates, strict=False)):
        if table is not None:
            table.line(int(truth), certificate)
        results.append(Result(index, int(truth), "fashion-mnist", meter.last, certificate))
    rule = str(results[0].certificate.terms.rule)
    return Curve.of(results, name=rule, source=f"the demo's images, shipped with the package: {rule}")


def _baselines(smoother: Smoother, dataset: Dataset, count: int, sampling: dict[str, Any]) -> Iterator[Curve]:
    """Each noise level alone, with votes of its own; those that the budget asks too much of are left out."""
    for rule in Single.all_named(smoother.bundle.sigmas):
        if rule != sampling["rule"]:
            try:
                yield _certified(smoother, dataset, count, sampling | {"rule": rule, "route": None})
            except InputError as error:
                print(f"{rule} is left out: {error}", file=sys.stderr)


def _next(out: Path, image: Path) -> str:
    """Three commands that work as they stand here."""
    call, bundle, data = program(), SHIPPED_BUNDLE.name, typed(SHIPPED_IMAGES, "npz:")
    certificate, results = typed(out / "certificate.json"), typed(out / "results.jsonl")
    commands = (
        f"{call} certify {bundle} {typed(image)} --json > {certificate}",
        f"{call} verify {certificate} --bundle {bundle} --replay {typed(image)} --strict",
        f"{call} evaluate {bundle} --dataset {data} --max 100 --out {results}",
    )
    return "next: certify one image, check its certificate, certify a data set (some minutes):\n  " + "\n  ".join(
        commands
    )
