"""`dualsmooth plan`: what more passes would give, from a pilot."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from dualsmooth.runtime.commands.options import numbers
from dualsmooth.runtime.evaluation.forecast import plan
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.statistics.accuracy import RADII, average_certified_radius, certified_accuracy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="results of a Fixed budget")
    parser.add_argument("--passes", default="1000,10000,100000", help="comma-separated passes a stream")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    passes = numbers("--passes", args.passes, int)
    forecasts = plan(load_results(args.results), passes)
    curves = {f"N = {f.n:,} (approximate)": f.radii for f in forecasts}
    if args.json:
        rows = [
            {
                "n": f.n,
                "certified_accuracy": list(certified_accuracy(f.radii)),
                "acr": average_certified_radius(f.radii),
                "acr_formula": None if math.isnan(f.formula_acr) else f.formula_acr,
            }
            for f in forecasts
        ]
        print(json.dumps({"approximate": True, "radii": list(RADII), "forecasts": rows}))
    else:
        print(markdown_table(curves))
        formula = ", ".join(
            "too few passes" if math.isnan(f.formula_acr) else f"{f.formula_acr:.3f}" for f in forecasts
        )
        print(f"\nACR by the formula of arXiv 2404.17371: {formula}. For planning only, not certificates.")
    return 0
