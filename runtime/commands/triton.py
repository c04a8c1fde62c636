"""`dualsmooth triton`: a Triton model repository of a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from dualsmooth.runtime.commands.options import BUNDLE_HELP, engine_of, engine_options, examples
from dualsmooth.runtime.serving.protocol import IN_PROCESS
from dualsmooth.runtime.serving.repository import fill_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth triton fashion-mnist --out repository",
        "dualsmooth triton fashion-mnist --out gpus --provider cuda --batch-size 1024",
    )
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the model repository")
    parser.add_argument(
        "--engine",
        dest="placement",
        default=IN_PROCESS,
        help="in-process (default): dual_smoothing runs the networks; bls: through the base models on the same server",
    )
    parser.add_argument(
        "--allow-seed", action="store_true", help="let clients choose the noise, for tests (default: refused)"
    )
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    models = fill_repository(
        args.bundle, args.out, placement=args.placement, allow_seed=args.allow_seed, **engine_of(args)
    )
    print(f"{args.out}: {', '.join(models)}; serve it with: tritonserver --model-repository={args.out}")
    return 0
