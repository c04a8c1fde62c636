"""`dualsmooth derive`: certificates of a changed bundle, from those of the old one and paired passes."""

from __future__ import annotations

import argparse
from pathlib import Path

from dualsmooth.runtime.commands.options import (
    BUNDLE_HELP,
    dataset_of,
    dataset_options,
    engine_of,
    engine_options,
    examples,
)
from dualsmooth.runtime.engine.providers import PROVIDERS
from dualsmooth.runtime.errors import one_of
from dualsmooth.runtime.evaluation.derive import derive
from dualsmooth.runtime.evaluation.progress import Progress, RunningAccuracy
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.smoothing.deriver import PASSES, Deriver
from dualsmooth.runtime.smoothing.smoother import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth derive results.jsonl --old fashion-mnist --bundle bundles/changed --dataset fashion-mnist "
        "--out derived.jsonl",
    )
    parser.add_argument("results", type=Path, help="results file of `dualsmooth evaluate` with the old bundle")
    parser.add_argument("--old", required=True, metavar="BUNDLE", help=f"that they are about: {BUNDLE_HELP}")
    parser.add_argument("--bundle", required=True, help="the changed bundle, whose certificates are wanted")
    dataset_options(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="results file of the changed bundle (JSON Lines)")
    parser.add_argument(
        "--passes",
        type=int,
        default=PASSES,
        help=f"paired passes of each stage and level that the radius needs (default {PASSES:,})",
    )
    parser.add_argument("--max", type=int, help="only the first MAX rows (default: all)")
    parser.add_argument(
        "--seed", type=int, help="fixed seed of the paired passes (default: the operating system's entropy)"
    )
    parser.add_argument("--old-provider", help=f"for the old bundle: {one_of(PROVIDERS)} (default: that of --provider)")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    dataset, options = dataset_of(args), engine_of(args)
    old = options if args.old_provider is None else {**options, "provider": args.old_provider, "provider_options": {}}
    shown: list[tuple[Progress, RunningAccuracy]] = []

    def progress(result: Result, done: int, total: int) -> None:
        if not shown:
            shown.append((Progress("", total, "images", done=done - 1), RunningAccuracy()))
        line, accuracy = shown[0]
        accuracy.add(result.correct_radius)
        line.advance(1, str(accuracy))

    with load(args.old, **old) as before, load(args.bundle, **options) as after:
        writer = derive(
            Deriver(before, after),
            args.results,
            dataset,
            args.out,
            passes=args.passes,
            seed=args.seed,
            most=args.max,
            progress=progress,
        )
    print(f"{len(writer.done)} results in {args.out}; see them with: dualsmooth report {args.results} {args.out}")
    return 0
