"""`dualsmooth merge`: one results file of several."""

from __future__ import annotations

import argparse
from pathlib import Path

from dualsmooth.runtime.commands.options import examples, force_option
from dualsmooth.runtime.evaluation.results import merge_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth merge part1.jsonl part2.jsonl --out merged.jsonl",
    )
    parser.add_argument("results", nargs="+", type=Path, help="results files of `dualsmooth evaluate`")
    parser.add_argument("--out", type=Path, required=True, help="the merged results file")
    force_option(parser)


def run(args: argparse.Namespace) -> int:
    count, dropped = merge_results(args.results, args.out, force=args.force)
    also = f" ({dropped} equal rows were there twice)" if dropped else ""
    print(f"{count} results in {args.out}{also}; see them with: dualsmooth report {args.out}")
    return 0
