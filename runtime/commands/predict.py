"""`dualsmooth predict`: labels of single images, without radii."""

from __future__ import annotations

import argparse
from pathlib import Path

from dualsmooth.runtime.commands.options import (
    coarser_of,
    coarser_options,
    engine_options,
    examples,
    noise_option,
    open_smoother,
    source_argument,
)
from dualsmooth.runtime.noise.streams import parse_noise
from dualsmooth.runtime.smoothing.settings import ALPHA, PREDICTION_PASSES, RULE
from dualsmooth.runtime.smoothing.view import label_words
from dualsmooth.runtime.statistics import routes, rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth predict fashion-mnist image.png",
        "dualsmooth predict fashion-mnist image.png -n 10000 --alpha 0.0001 --json",
    )
    source_argument(parser)
    parser.add_argument("images", nargs="+", metavar="image", type=Path, help="a PNG, JPEG or NPY file")
    parser.add_argument(
        "-n", type=int, default=PREDICTION_PASSES, help=f"passes a stage and level (default {PREDICTION_PASSES})"
    )
    parser.add_argument("--rule", default=RULE, help=f"{rules.PREDICTING} (default {RULE})")
    parser.add_argument("--route", help=f"{routes.FORMS} (default: the rule's)")
    parser.add_argument(
        "--alpha",
        type=float,
        default=ALPHA,
        help=f"probability, above 0 and at most 0.1, that a label is wrong (default {ALPHA:g})",
    )
    coarser_options(parser)
    parser.add_argument("--seed", type=int, help="fixed seed (default: the operating system's entropy)")
    noise_option(parser)
    parser.add_argument("--json", action="store_true", help="one prediction a line, as JSON")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    noise, coarser = parse_noise(args.noise), coarser_of(args)
    smoother = open_smoother(args)
    images = [smoother.check_image(path) for path in args.images]
    for path, image in zip(args.images, images, strict=True):
        found = smoother.predict(
            image, noise=noise, alpha=args.alpha, n=args.n, rule=args.rule, route=args.route, seed=args.seed, **coarser
        )
        name = label_words(found.answer, smoother.bundle.classes, found.group)
        shown = f"{path}: {name}, {found.passes} passes, {found.seed.noise} noise"
        print(found.to_json() if args.json else shown, flush=True)
    return 0
