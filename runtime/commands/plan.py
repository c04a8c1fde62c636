"""`dualsmooth plan`: what more passes would give, and what many images would cost, from a pilot."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from dualsmooth.runtime.commands.options import examples, numbers
from dualsmooth.runtime.engine.providers.cores import usable_cores
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.forecast import Capacity, Forecast, capacity, passes_spent, pilots_rate, plan
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report import print_accuracy
from dualsmooth.runtime.statistics import budgets
from dualsmooth.runtime.statistics.accuracy import RADII, average_certified_radius, certified_accuracy

COST = ("budget", "passes_per_second", "replica_cores", "cores", "requests")
"""Options that say something about `--images` alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth plan results.jsonl --passes 1000,10000,100000",
        "dualsmooth plan results.jsonl --images 1000000 --cores 64 --requests 100",
    )
    parser.add_argument("results", type=Path, help="results of a pilot; for --passes, of a Fixed budget")
    parser.add_argument(
        "--passes",
        default="1000,10000,100000",
        help="forecast the accuracy at these passes a stream, with commas (default 1000,10000,100000)",
    )
    group = parser.add_argument_group("cost", "instead: what a data set or a service would cost")
    group.add_argument("--images", type=int, help="certificates to issue (default: forecast the accuracy)")
    group.add_argument(
        "--budget", help=f"{budgets.FORMS} (default: the pilot's; from another one only fixed to fixed can be told)"
    )
    group.add_argument(
        "--passes-per-second", type=float, help="of one replica, as `dualsmooth bench` says (default: the pilot's)"
    )
    group.add_argument(
        "--replica-cores", type=int, help="cores (or GPUs) that make them (default: the cores of this process)"
    )
    group.add_argument("--cores", type=int, help="all cores (or GPUs) there are (default: one replica's)")
    group.add_argument(
        "--requests", type=float, help="certificates a second that a service must give (default: not asked)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")


def run(args: argparse.Namespace) -> int:
    results = load_results(args.results)
    if args.images is not None:
        _show_cost(args, results)
        return 0
    for name in COST:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} without --images; add --images N, the certificates to issue")
    _show_accuracy(plan(results, numbers("--passes", args.passes, int)), as_json=args.json)
    return 0


def _show_accuracy(forecasts: Sequence[Forecast], *, as_json: bool) -> None:
    if as_json:
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
        return
    print_accuracy({f"N = {f.n:,} (approximate)": f.radii for f in forecasts})
    formula = ", ".join("too few passes" if math.isnan(f.formula_acr) else f"{f.formula_acr:.3f}" for f in forecasts)
    print(f"\nACR by the formula of arXiv 2404.17371: {formula}. For planning only, not certificates.")


def _show_cost(args: argparse.Namespace, results: Sequence[Result]) -> None:
    if args.requests is not None and not (args.requests > 0 and math.isfinite(args.requests)):
        raise InputError(f"--requests {args.requests:g}; expected certificates a second, e.g. 1000")
    wanted = None if args.budget is None else budgets.parse_budget(args.budget)
    replica = usable_cores() if args.replica_cores is None else args.replica_cores
    given = args.passes_per_second
    rate = pilots_rate(results) if given is None else given
    found = capacity(
        passes_spent(results, wanted),
        args.images,
        rate=rate,
        replica_cores=replica,
        cores=replica if args.cores is None else args.cores,
    )
    budget = str(wanted or results[0].certificate.terms.budget)
    needed = None if args.requests is None else found.replicas_for(args.requests)
    if args.json:
        cost = {name: None if value != value else value for name, value in vars(found).items()}
        rated = {"passes_per_second": rate, "replica_cores": replica}
        asked = {} if needed is None else {"requests": args.requests, "replicas_for_requests": needed}
        print(json.dumps({"budget": budget, "pilot_images": len(results), **rated, **cost, **asked}))
        return
    speed = f"{rate:,.0f} passes/s ({'the pilot' if given is None else 'given'}) on {replica:,} cores"
    print(_text(found, budget, len(results), speed))
    if needed is not None:
        print(f"service      {args.requests:,g} certificates/s need {needed:,} replicas that are never idle: take more")


def _text(found: Capacity, budget: str, pilot: int, speed: str) -> str:
    error = "" if math.isnan(found.error) else f" ± {found.error:,.0f}"
    high = f"90 % up to {found.high:,}, {found.high_seconds:,.3f} s"
    lines = {
        "certificate": f"{budget}: {found.mean:,.0f}{error} passes in the mean of {pilot:,} images; {high}",
        "replica": f"{speed}: {found.served:,.4f} certificates/s",
        "all": f"{found.images:,} images: {found.passes:,} passes, {found.core_hours:,.2f} core hours",
        "clock": f"{found.hours:,.2f} hours on {found.replicas:,} replicas",
    }
    return "\n".join(f"{name:13}{text}" for name, text in lines.items())
