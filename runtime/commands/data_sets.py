"""The commands on whole data sets and their results: evaluate, merge, report, plan."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dualsmooth.runtime.commands.single_images import (
    SOURCE,
    engine_of,
    engine_options,
    open_smoother,
    sampling_of,
    sampling_options,
    source,
)
from dualsmooth.runtime.datasets.class_names import read_class_names
from dualsmooth.runtime.datasets.dataset import NAMES, Dataset, load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import RADII, average_certified_radius, certified_accuracy
from dualsmooth.runtime.evaluation.evaluate import Local, Workers, choose_indices, evaluate
from dualsmooth.runtime.evaluation.field_log import write_log
from dualsmooth.runtime.evaluation.forecast import plan
from dualsmooth.runtime.evaluation.progress import SHOWN_AT, Progress
from dualsmooth.runtime.evaluation.results import Result, ResultsWriter, merge_results, read_results
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.report import (
    Run,
    conditions,
    csv_table,
    html_report,
    latex_table,
    load_runs,
    markdown_table,
    plot_curves,
)
from dualsmooth.runtime.serving.client import is_url
from dualsmooth.runtime.statistics.budgets import AtRadii, AtRadius, Budget, Fixed, parse_budget

DEFAULT = Fixed(10_000)
DECIDED_ON = 200
"""Selection votes under --at-radii: fewer would miss the label of images that are certified at r = 0 only just."""
N = TypeVar("N", int, float)
OVER = "write over files that exist"
FORMATS = (".html", ".png", ".svg", ".csv", ".tex", ".tsv")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the command line."""
    run = commands.add_parser("evaluate", help="certify a data set; appends, resumes after a kill")
    run.add_argument("bundle", type=source, help=SOURCE)
    _dataset_options(run, required=True)
    run.add_argument("--out", type=Path, required=True, help="results file (JSON Lines)")
    run.add_argument("--skip", type=int, default=1, help="every SKIP-th image (default 1: all)")
    run.add_argument("--max", type=int, help="only images with an index below MAX")
    run.add_argument("--indices", help="comma-separated indices instead of --skip and --max")
    run.add_argument("--shard", metavar="I/N", help="only the I-th of N equal parts of these images, I from 1")
    run.add_argument("--all-levels", action="store_true", help="sample every level in full, to compare rules offline")
    run.add_argument(
        "--at-radii", metavar="R,R,...", help="decide the curve at these radii only, at a fraction of the passes"
    )
    run.add_argument(
        "--shared-noise",
        action="store_true",
        help="one noise for all images and levels: faster; each certificate holds as before, failures are correlated",
    )
    run.add_argument("--engine", choices=("local", "ray"), default="local", help="where to compute (default local)")
    run.set_defaults(**RAY_DEFAULTS)
    run.add_argument("--ray-address", help="a Ray cluster (default: RAY_ADDRESS, else one is started here)")
    run.add_argument("--workers", type=int, help="Ray actors (default: as many as there is room for)")
    run.add_argument("--cpus-per-worker", type=int, help="cores of a Ray actor (default 1)")
    run.add_argument("--gpus-per-worker", type=float, help="GPUs of a Ray actor, fractions share one")
    run.add_argument("--block", type=int, help="images a Ray task (default 8)")
    engine_options(run)
    sampling_options(run, DEFAULT)
    run.set_defaults(run=_evaluate)

    merge = commands.add_parser("merge", help="put the results files of shards together, sorted by index")
    merge.add_argument("results", nargs="+", type=Path)
    merge.add_argument("--out", type=Path, required=True, help="the merged results file")
    merge.add_argument("--force", action="store_true", help=OVER)
    merge.set_defaults(run=_merge)

    report = commands.add_parser("report", help="certified accuracy of results files and TSV logs")
    report.add_argument("results", nargs="+", type=Path)
    report.add_argument(
        "--rule",
        action="append",
        help="recompute from the votes: interval, paper, multiscale, single, oracle, frontier, RULE@ROUTE",
    )
    report.add_argument("--route", help="median, mode or quantile:Q, for recomputing")
    report.add_argument("--alpha", type=float, help="recompute at another alpha")
    report.add_argument("--radii", default=",".join(f"{r:g}" for r in RADII), help="comma-separated")
    report.add_argument(
        "--out", type=Path, action="append", help=f"a page, plot, table or log: {' '.join(FORMATS)}; may be repeated"
    )
    report.add_argument("--force", action="store_true", help=OVER)
    _dataset_options(report, required=False)
    report.add_argument("--title", help="title of the page")
    report.add_argument("--json", action="store_true")
    report.set_defaults(run=_report)

    planner = commands.add_parser("plan", help="predict certified accuracy at other N from a pilot (approximate)")
    planner.add_argument("results", type=Path, help="results of a Fixed budget")
    planner.add_argument("--passes", default="1000,10000,100000", help="comma-separated passes a stream")
    planner.add_argument("--json", action="store_true")
    planner.set_defaults(run=_plan)


def _dataset_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    use = "" if required else ", to show the images on the page"
    parser.add_argument("--dataset", required=required, help=f"{NAMES}{use}")
    parser.add_argument("--classes", help="other names of its classes, in its order: a text file, or with commas")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files")
    parser.add_argument("--split", default="test", help="test (default) or train")


def _dataset(args: argparse.Namespace) -> Dataset:
    names = None if args.classes is None else read_class_names(args.classes)
    return load_dataset(args.dataset, split=args.split, data_dir=args.data_dir, classes=names)


def _evaluate(args: argparse.Namespace) -> int:
    sampling = sampling_of(args)
    sampling["budget"] = _budget(args)
    sampling["noise"] = replace(sampling["noise"], shared=args.shared_noise)
    shard = _shard(args.shard)
    dataset = _dataset(args)
    wanted = None if args.indices is None else _numbers("--indices", args.indices, int)
    if wanted is not None and (args.skip, args.max) != (1, None):
        raise InputError(f"--indices with --skip {args.skip} --max {args.max}; give the indices, or a range of them")
    indices = choose_indices(len(dataset), skip=args.skip, most=args.max, indices=wanted, shard=shard)
    lines: list[Progress] = []

    def opened(writer: ResultsWriter) -> None:
        if writer.repaired:
            print(f"{args.out}: a torn last line was cut off; its image is certified again", file=sys.stderr)
        old = set(indices)
        before = [radius for index, radius in zip(writer.order, writer.radii, strict=True) if index in old]
        if before:
            print(f"{args.out}: {len(before)} of {len(indices)} images are there already", file=sys.stderr)
        lines.append(Progress(len(indices), before, at=_shown(sampling["budget"])))

    def progress(result: Result, done: int, total: int) -> None:
        lines[0].advance(result.correct_radius)

    with _workers(args) as workers:
        writer = evaluate(
            workers,
            dataset,
            args.out,
            indices=indices,
            all_levels=args.all_levels,
            progress=progress,
            opened=opened,
            **sampling,
        )
    source = ["--dataset", args.dataset, *(["--data-dir", str(args.data_dir)] if args.data_dir else [])]
    source += ["--split", args.split] if args.split != "test" else []
    source += ["--classes", args.classes] if args.classes else []
    report = shlex.join(["dualsmooth", "report", str(args.out), *source, "--out", "report.html"])
    print(f"{len(writer.done)} results in {args.out}; see them with: {report}")
    return 0


RAY_DEFAULTS: dict[str, Any] = {
    "ray_address": None,
    "workers": 0,
    "cpus_per_worker": 1,
    "gpus_per_worker": 0.0,
    "block": 8,
}


def _workers(args: argparse.Namespace) -> AbstractContextManager[Workers]:
    if args.engine == "local":
        for name, usual in RAY_DEFAULTS.items():
            if (given := getattr(args, name)) != usual:
                raise InputError(f"--{name.replace('_', '-')} {given} is for Ray workers; add --engine ray, or drop it")
        return nullcontext(Local(open_smoother(args)))
    if is_url(args.bundle):
        raise InputError(
            f"--engine ray with {args.bundle}; workers hold the networks themselves: pass a bundle, or drop "
            "--engine ray"
        )
    from dualsmooth.runtime.evaluation.ray_workers import RayWorkers

    return RayWorkers(
        args.bundle,
        **engine_of(args),
        address=args.ray_address,
        workers=args.workers,
        cpus=args.cpus_per_worker,
        gpus=args.gpus_per_worker,
        block=args.block,
    )


def _budget(args: argparse.Namespace) -> Budget:
    if args.at_radii is None:
        return parse_budget(args.budget)
    if args.budget != str(DEFAULT):
        raise InputError(f"--at-radii with --budget {args.budget}; give one, e.g. --budget at-radii:0.5,1:20000")
    if args.all_levels:
        raise InputError("--at-radii with --all-levels; sampling every level in full is what --at-radii saves")
    return AtRadii(tuple(sorted(set(_numbers("--at-radii", args.at_radii, float)))), n0=DECIDED_ON)


def _shown(budget: Budget) -> Sequence[float]:
    """Radii of the running certified accuracy: those that the budget decides, at most four of them."""
    if isinstance(budget, AtRadii):
        return budget.radii[:: -(-len(budget.radii) // 4)]
    return (budget.r,) if isinstance(budget, AtRadius) else SHOWN_AT


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and len(text) < 20):
        raise InputError(f"--shard {text[:40]!r}; expected i/n with 1 <= i <= n, e.g. 1/4 to 4/4")
    return int(part), int(parts)


def _numbers(option: str, text: str, kind: Callable[[str], N]) -> list[N]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what, example = ("integers", "0,5,9") if kind is int else ("numbers", "0,0.5,1")
        raise InputError(f"{option} {text!r}; expected comma-separated {what}, e.g. {example}") from None


def _merge(args: argparse.Namespace) -> int:
    count, dropped = merge_results(args.results, args.out, force=args.force)
    also = f" ({dropped} equal rows were there twice)" if dropped else ""
    print(f"{count} results in {args.out}{also}; see them with: dualsmooth report {args.out}")
    return 0


def _report(args: argparse.Namespace) -> int:
    radii = _numbers("--radii", args.radii, float)
    if not all(np.isfinite(r) and r >= 0 for r in radii):
        raise InputError(f"--radii {args.radii!r}; expected radii from 0, e.g. 0,0.5,1")
    outs: list[Path] = args.out or []
    for out in outs:
        if out.suffix not in FORMATS:
            raise InputError(f"--out {out}; expected a file that ends in {', '.join(FORMATS)}")
        check_free(out, args.force)
    dataset = _dataset(args) if args.dataset else None
    runs = load_runs(args.results, rules=args.rule or (), route=args.route, alpha=args.alpha)
    if any(out.suffix == ".tsv" for out in outs) and (len(runs) != 1 or not runs[0].results):
        raise InputError("a .tsv log holds one run of certificates; pass one results file and at most one --rule")
    curves = {run.name: run.radii for run in runs}
    decided = {run.name: run.decided for run in runs if run.decided}
    table_at = [r for r in radii if all(r in d for d in decided.values())] if decided else radii
    if not table_at:
        raise InputError(
            f"--radii {args.radii}: the results are decided at {', '.join(f'{r:g}' for r in min(decided.values()))}; "
            "pass some of these"
        )
    if args.json:
        shares = {name: list(certified_accuracy(r, table_at)) for name, r in curves.items()}
        print(json.dumps({"radii": table_at, "curves": shares}))
    else:
        sources = dict.fromkeys(run.source for run in runs)
        print(
            "\n".join(f"{path}: {_facts([run for run in runs if run.source == path])}" for path in sources), end="\n\n"
        )
        print(markdown_table(curves, table_at))
        for name, points in decided.items():
            print(f"\n{name} is decided at r = {', '.join(f'{r:g}' for r in points)} only; its ACR is a lower end")
    title = args.title or _title(runs)
    for out in outs:
        if out.suffix in (".png", ".svg"):
            plot_curves(curves, out, title=title, note=conditions(runs), decided=decided)
        elif out.suffix == ".html":
            write_atomically(out, html_report(runs, radii, title=title, dataset=dataset))
        elif out.suffix == ".tsv":
            write_log(runs[0].results, out)
        else:
            write_atomically(out, (csv_table if out.suffix == ".csv" else latex_table)(curves, table_at))
    return 0


def _facts(runs: Sequence[Run]) -> str:
    """What holds for all runs of one file; where it is shown under several rules, none of them is the file's own."""
    first = runs[0].facts.items()
    return ", ".join(f"{name} {value}" for name, value in first if all(r.facts.get(name) == value for r in runs))


def _title(runs: Sequence[Run]) -> str:
    names = {run.results[0].dataset for run in runs if run.results}
    return f"Certified accuracy on {names.pop()}" if len(names) == 1 else "Certified accuracy"


def _plan(args: argparse.Namespace) -> int:
    passes = _numbers("--passes", args.passes, int)
    forecasts = plan(read_results(args.results), passes)
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
