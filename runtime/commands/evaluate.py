"""`dualsmooth evaluate`: certificates of a data set, appended to a results file as they are made."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualsmooth.runtime.commands.options import (
    dataset_of,
    dataset_options,
    engine_of,
    engine_options,
    examples,
    numbers,
    open_smoother,
    sampling_of,
    sampling_options,
    source_argument,
)
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.evaluate import Local, Workers, choose_indices, evaluate
from dualsmooth.runtime.evaluation.outlook import Outlook, passes_between
from dualsmooth.runtime.evaluation.progress import SHOWN_AT, Progress, RunningAccuracy
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.serving.address import is_url
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import BUDGET, Settings
from dualsmooth.runtime.statistics.budgets import AtRadii, Budget
from dualsmooth.runtime.statistics.rules.rule import Terms

DECIDED_ON = 200
"""Selection votes under --at-radii: fewer would miss the label of images that are certified at r = 0 only just."""
RAY_DEFAULTS: dict[str, Any] = {
    "ray_address": None,
    "workers": 0,
    "cpus_per_worker": 1,
    "gpus_per_worker": 0.0,
    "block": 8,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth evaluate fashion-mnist --dataset fashion-mnist --max 500 --out results.jsonl",
        "dualsmooth evaluate fashion-mnist --dataset fashion-mnist --at-radii 0.25,0.5,1 --out curve.jsonl",
        "dualsmooth evaluate fashion-mnist --dataset fashion-mnist --budget fixed:1000 --shard 1/4 --out part.jsonl",
    )
    source_argument(parser)
    dataset_options(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON Lines)")
    parser.add_argument("--skip", type=int, default=1, help="every SKIP-th image (default 1: all)")
    parser.add_argument("--max", type=int, help="only images with an index below MAX (default: no limit)")
    parser.add_argument("--indices", help="comma-separated indices instead of --skip and --max (default: none)")
    parser.add_argument(
        "--shard", metavar="I/N", help="only the I-th of N equal parts of these images, I from 1 (default: all parts)"
    )
    parser.add_argument(
        "--all-levels", action="store_true", help="sample every level in full, to compare rules offline"
    )
    parser.add_argument(
        "--at-radii",
        metavar="R,R,...",
        help="decide the curve at these L2 radii (pixels in [0, 1]) only, at a fraction of the passes (default: all)",
    )
    parser.add_argument(
        "--shared-noise",
        action="store_true",
        help="one noise for all images and levels: faster; each certificate holds as before, failures are correlated",
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where to compute (default local)")
    parser.set_defaults(**RAY_DEFAULTS)
    parser.add_argument("--ray-address", help="a Ray cluster (default: RAY_ADDRESS, else one is started here)")
    parser.add_argument("--workers", type=int, help="Ray actors (default: as many as there is room for)")
    parser.add_argument("--cpus-per-worker", type=int, help="cores of a Ray actor (default 1)")
    parser.add_argument("--gpus-per-worker", type=float, help="GPUs of a Ray actor, fractions share one (default 0)")
    parser.add_argument("--block", type=int, help="images a Ray task (default 8)")
    engine_options(parser)
    sampling_options(parser, BUDGET)


def run(args: argparse.Namespace) -> int:
    sampling = sampling_of(args)
    if args.at_radii is not None:
        sampling["budget"] = _at_radii(args)
    sampling["noise"] = replace(sampling["noise"], shared=args.shared_noise)
    shard = _shard(args.shard)
    dataset = dataset_of(args)
    wanted = None if args.indices is None else numbers("--indices", args.indices, int)
    if wanted is not None and (args.skip, args.max) != (1, None):
        raise InputError(f"--indices with --skip {args.skip} --max {args.max}; give the indices, or a range of them")
    indices = choose_indices(len(dataset), skip=args.skip, most=args.max, indices=wanted, shard=shard)
    with _workers(args) as workers:
        told = _Told(args.out, indices, Settings.of(**sampling).terms(workers.bundle), all_levels=args.all_levels)
        if isinstance(workers, Local):
            workers = replace(workers, watch=told.batch)
        writer = evaluate(
            workers,
            dataset,
            args.out,
            indices=indices,
            all_levels=args.all_levels,
            progress=told.finished,
            opened=told.opened,
            **sampling,
        )
    source = ["--dataset", args.dataset, *(["--data-dir", str(args.data_dir)] if args.data_dir else [])]
    source += ["--split", args.split] if args.split != "test" else []
    source += ["--classes", args.classes] if args.classes else []
    report = shlex.join(["dualsmooth", "report", str(args.out), *source, "--out", "report.html"])
    print(f"{len(writer.done)} results in {args.out}; see them with: {report}")
    return 0


class _Told:
    """What is said on stderr about an evaluation of `indices` while it runs."""

    def __init__(self, out: Path, indices: Sequence[int], terms: Terms, *, all_levels: bool) -> None:
        self._out, self._indices = out, indices
        self._between = passes_between(terms, all_levels=all_levels)
        self._at = _shown(terms.budget)

    def opened(self, writer: ResultsWriter) -> None:
        """What is there already, before the first image."""
        if writer.repaired:
            print(f"{self._out}: a torn last line was cut off; its image is certified again", file=sys.stderr)
        old = set(self._indices)
        before = [radius for index, radius in zip(writer.order, writer.radii, strict=True) if index in old]
        if before:
            print(f"{self._out}: {len(before)} of {len(self._indices)} images are there already", file=sys.stderr)
        self._accuracy = RunningAccuracy(before, self._at)
        self._line = Progress("", len(self._indices), "images", done=len(before))
        self._outlook = Outlook(len(self._indices) - len(before), self._between, self._line.say)

    def batch(self, meter: Meter) -> None:
        """After each batch that is computed here."""
        self._outlook.look(meter)

    def finished(self, result: Result, done: int, total: int) -> None:
        self._outlook.finished(result.certificate.passes)
        self._accuracy.add(result.correct_radius)
        self._line.advance(1, str(self._accuracy))


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


def _at_radii(args: argparse.Namespace) -> Budget:
    for name in ("budget", "mode"):
        if (other := getattr(args, name)) is not None:
            raise InputError(f"--at-radii with --{name} {other}; give one, e.g. --budget at-radii:0.5,1:20000")
    if args.all_levels:
        raise InputError("--at-radii with --all-levels; sampling every level in full is what --at-radii saves")
    return AtRadii(tuple(sorted(set(numbers("--at-radii", args.at_radii, float)))), n0=DECIDED_ON)


def _shown(budget: Budget) -> Sequence[float]:
    """Radii of the running certified accuracy: those that the budget decides, at most four of them."""
    return SHOWN_AT if budget.decides is None else budget.decides[:: -(-len(budget.decides) // 4)]


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and len(text) < 20):
        raise InputError(f"--shard {text[:40]!r}; expected i/n with 1 <= i <= n, e.g. 1/4 to 4/4")
    return int(part), int(parts)
