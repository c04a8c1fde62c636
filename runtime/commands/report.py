"""`dualsmooth report`: certified accuracy of results files and logs, as text, page, plot and tables."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualsmooth.runtime.bundle.groups_file import read_groups
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.commands.options import dataset_of, dataset_options, examples, force_option, numbers
from dualsmooth.runtime.datasets.class_names import numbered
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.field_log import is_log, write_log
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.report import (
    Curve,
    conditions,
    csv_table,
    html_report,
    latex_table,
    load_curves,
    plot_curves,
    print_accuracy,
)
from dualsmooth.runtime.statistics import norms, routes, rules
from dualsmooth.runtime.statistics.accuracy import RADII, certified_accuracy
from dualsmooth.runtime.statistics.groups import Groups

LINF_RADII = tuple(k / 255 for k in (0, 0.25, 0.5, 1, 2, 4, 8))
FORMATS = (".html", ".png", ".svg", ".csv", ".tex", ".tsv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth report results.jsonl --dataset fashion-mnist --out report.html",
        "dualsmooth report results.jsonl --rule paper --rule interval --out curves.html --out curves.csv",
        "dualsmooth report results.jsonl others.tsv --out table.tex",
    )
    parser.add_argument(
        "results", nargs="+", type=Path, help="results files of `dualsmooth evaluate`, or TSV logs of the field"
    )
    parser.add_argument(
        "--rule",
        action="append",
        help=f"recompute from the votes: {rules.FORMS}, or RULE@ROUTE; single: each sigma alone; oracle: the best of "
        "these, which no one can issue; frontier: the interval rule at nine quantiles; repeatable "
        "(default: the file's)",
    )
    parser.add_argument("--route", help=f"{routes.FORMS}, for recomputing (default: the rule's)")
    parser.add_argument("--alpha", type=float, help="recompute at another alpha (default: the file's)")
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="BUNDLE|FILE",
        help="also what the votes prove where groups may answer: a bundle's, or a file's that names classes by number "
        "(default: the file's own, if any)",
    )
    parser.add_argument("--norm", default=norms.L2, help=f"{norms.FORMS} (default {norms.L2}); see docs/norms.md")
    parser.add_argument(
        "--input-shape", metavar="C,H,W", help="shape of the images, for --norm linf (default: the data set's)"
    )
    parser.add_argument(
        "--radii",
        help="radii of the tables, pixels in [0, 1], with commas "
        f"(default {','.join(f'{r:g}' for r in RADII)}; for linf multiples of 1/255)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        help=f"a page, plot, table or log: {' '.join(FORMATS)}; may be repeated (default: text only)",
    )
    force_option(parser)
    dataset_options(parser, required=False, use=", to show the images on the page (default: none)")
    parser.add_argument("--title", help="title of the page (default: by the data set)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")


def run(args: argparse.Namespace) -> int:
    norm = norms.norm_named(args.norm)
    radii = numbers("--radii", args.radii, float) if args.radii else list(LINF_RADII if norm.shrinks else RADII)
    if not all(np.isfinite(r) and r >= 0 for r in radii):
        raise InputError(f"--radii {args.radii!r}; expected radii from 0, e.g. 0,0.5,1")
    outs: list[Path] = args.out or []
    for out in outs:
        if out.suffix not in FORMATS:
            raise InputError(f"--out {out}; expected a file that ends in {', '.join(FORMATS)}")
        if out.suffix in (".html", ".tsv") and args.norm != norms.L2:
            raise InputError(f"--norm {args.norm} with --out {out}, which is in L2; expected .png, .svg, .csv or .tex")
        check_free(out, args.force)
    dataset = dataset_of(args) if args.dataset else None
    groups = None if args.groups is None else _groups(args.groups, args.results)
    runs = load_curves(args.results, rules=args.rule or (), route=args.route, alpha=args.alpha, groups=groups)
    runs = [run.in_norm(norm, _values(args, dataset)) for run in runs]
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
        _print(runs, table_at)
    title = args.title or _title(runs)
    for out in outs:
        if out.suffix in (".png", ".svg"):
            plot_curves(runs, out, title=title, note=conditions(runs), norm=args.norm)
        elif out.suffix == ".html":
            write_atomically(out, html_report(runs, radii, title=title, dataset=dataset))
        elif out.suffix == ".tsv":
            write_log(runs[0].results, out)
        else:
            write_atomically(out, (csv_table if out.suffix == ".csv" else latex_table)(curves, table_at))
        print(f"written: {out}", file=sys.stderr)
    return 0


def _groups(source: Path, results: Sequence[Path]) -> Groups:
    """The groups of a bundle, or of a file that says class numbers: results do not hold names. Raises `InputError`."""
    if not source.is_dir():
        count = next((load_results(path)[0].certificate.terms.classes for path in results if not is_log(path)), 2)
        return Groups.resolved(read_groups(source), numbered(count))
    if (found := read_bundle(source).groups) is None:
        raise InputError(f"--groups {source}: this bundle has none; pass a file of groups")
    return found


def _values(args: argparse.Namespace, dataset: Dataset | None) -> int | None:
    """Numbers in an image, where the command says its shape or names the data set. Raises `InputError`."""
    if args.input_shape is not None:
        return math.prod(numbers("--input-shape", args.input_shape, int))
    return None if dataset is None else math.prod(dataset.images.shape[1:])


def _print(runs: Sequence[Curve], at: Sequence[float]) -> None:
    sources = dict.fromkeys(run.source for run in runs)
    for path in sources:
        print(f"{path}:\n{_facts([run for run in runs if run.source == path])}\n")
    print_accuracy({run.name: run.radii for run in runs}, at)
    for run in runs:
        if run.decided:
            radii = ", ".join(f"{r:g}" for r in run.decided)
            print(f"\n{run.name} is decided at r = {radii} only; its ACR is a lower end")


def _facts(runs: Sequence[Curve]) -> str:
    """What holds for all runs of one file; where it is shown under several rules, none of them is the file's own."""
    first = runs[0].facts.items()
    return "\n".join(f"  {name:<12} {value}" for name, value in first if all(r.facts.get(name) == value for r in runs))


def _title(runs: Sequence[Curve]) -> str:
    names = {run.results[0].dataset for run in runs if run.results}
    return f"Certified accuracy on {names.pop()}" if len(names) == 1 else "Certified accuracy"
