"""What several commands share: their options, and what these options give."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dualsmooth.runtime.bundle.groups_file import read_groups
from dualsmooth.runtime.bundle.shipped import SHIPPED_NAMES
from dualsmooth.runtime.datasets.class_names import read_class_names
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import DETAILS, NAMES, load_dataset
from dualsmooth.runtime.engine.providers import PROVIDERS, parse_options
from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.noise.streams import AUTO, NOISE_FORMS, parse_noise
from dualsmooth.runtime.serving.address import is_url
from dualsmooth.runtime.serving.client import connect
from dualsmooth.runtime.smoothing import modes
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE
from dualsmooth.runtime.smoothing.smoother import Smoother, load
from dualsmooth.runtime.statistics import budgets, routes, rules

N = TypeVar("N", int, float)
BUNDLE_HELP = f"a bundle's folder, or the name of one that ships ({SHIPPED_NAMES})"
ENGINE_DEFAULTS: dict[str, Any] = {"provider": "cpu", "threads": 0, "batch_size": 256}


def examples(parser: argparse.ArgumentParser, *lines: str) -> None:
    """Show these commands below the help. `tests/docs` runs them."""
    parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in lines)


def program() -> str:
    """How this program was started, for commands that a reader is to type next: they work from where the reader is."""
    start = Path(sys.argv[0])
    if start.name != "dualsmooth":
        return f"{shlex.quote(sys.executable)} -m dualsmooth"
    found = shutil.which("dualsmooth")
    return "dualsmooth" if found and start.exists() and Path(found).samefile(start) else shlex.quote(str(start))


def typed(path: Path, before: str = "") -> str:
    """A path as one types it, `before` in front: from here, where it lies below."""
    here = Path.cwd()
    return shlex.quote(before + str(path.relative_to(here) if path.is_relative_to(here) else path))


def source_argument(parser: argparse.ArgumentParser) -> None:
    """Where the networks are: a bundle here, or a server."""
    parser.add_argument(
        "bundle",
        help=f"{BUNDLE_HELP}, or a Triton server: grpc://host:8001, http://host:8000",
    )


def engine_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs base models; `engine_of` reads them."""
    parser.set_defaults(**ENGINE_DEFAULTS)
    parser.add_argument("--provider", help=f"{one_of(PROVIDERS)} (default {ENGINE_DEFAULTS['provider']})")
    parser.add_argument("--threads", type=int, help="engine threads (default: the cores of this process)")
    parser.add_argument(
        "--batch-size", type=_batch_size, help="passes per engine call (default 256); auto: measured once"
    )
    parser.add_argument(
        "--provider-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the provider, e.g. arena=off (docs/engines.md); repeatable (default: none)",
    )


def _batch_size(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def engine_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load` that `engine_options` gave."""
    return {
        "provider": args.provider,
        "threads": args.threads,
        "batch_size": args.batch_size,
        "provider_options": parse_options(args.provider_option),
    }


def open_smoother(args: argparse.Namespace) -> Smoother:
    """The bundle's networks here, or a server's; what is asked of the engine is never silently left out."""
    if is_url(args.bundle):
        for name, usual in (*ENGINE_DEFAULTS.items(), ("provider_option", [])):
            if (given := getattr(args, name)) != usual:
                raise InputError(
                    f"--{name.replace('_', '-')} {' '.join(given) if isinstance(given, list) else given} with "
                    f"{args.bundle}, whose networks run as the server's config.pbtxt says; set it there with "
                    "`dualsmooth triton`, or pass a bundle"
                )
        return connect(args.bundle)
    return load(args.bundle, **engine_of(args))


def sampling_options(parser: argparse.ArgumentParser, budget: budgets.Budget) -> None:
    """Options of every command that issues certificates, with the `budget` of those who choose none; `sampling_of`
    reads them."""
    parser.set_defaults(usual_budget=budget)
    parser.add_argument(
        "--alpha",
        type=float,
        default=ALPHA,
        help=f"probability, above 0 and at most 0.1, that a certificate is wrong (default {ALPHA:g})",
    )
    parser.add_argument(
        "--budget",
        help=f"passes to spend: {budgets.FORMS}; N passes a stage and level, "
        f"R and TOLERANCE in pixels in [0, 1] (default {budget})",
    )
    parser.add_argument("--mode", help=f"a named budget in place of --budget: {modes.FORMS} (default: none)")
    parser.add_argument(
        "--r", type=float, help="the L2 radius that --mode decide decides at, pixels in [0, 1] (default: none)"
    )
    parser.add_argument("--rule", default=RULE, help=f"{rules.FORMS} (default {RULE})")
    parser.add_argument(
        "--route", help=f"{routes.FORMS}; quantiles move between small and large radii (default: the rule's)"
    )
    coarser_options(parser)
    parser.add_argument("--seed", type=int, help="fixed seed (default: the operating system's entropy)")
    noise_option(parser)


def coarser_options(parser: argparse.ArgumentParser) -> None:
    """What may answer where the class is in doubt; `coarser_of` reads them."""
    parser.add_argument(
        "--groups", action="store_true", help="where the class is in doubt, the bundle's groups answer (default: no)"
    )
    parser.add_argument(
        "--groups-file",
        type=Path,
        metavar="FILE",
        help="groups of your own, JSON or TOML: name to classes (default: none)",
    )
    parser.add_argument(
        "--at-most", type=int, default=1, metavar="M", help="or a set of at most M classes (default 1: a class)"
    )


def coarser_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `certify` that `coarser_options` gave. Raises `InputError`."""
    groups = args.groups if args.groups_file is None else read_groups(args.groups_file)
    return {"groups": groups, "at_most": args.at_most}


def noise_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--noise", default=AUTO, help=f"{NOISE_FORMS} (default {AUTO}: table for 8-bit images, else float)"
    )


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `certify_many` that `sampling_options` gave. Raises `InputError`."""
    given = None if args.budget is None else budgets.parse_budget(args.budget)
    return {
        "alpha": args.alpha,
        "budget": modes.chosen_budget(given, args.mode, args.r) or args.usual_budget,
        **coarser_of(args),
        "rule": args.rule,
        "route": args.route,
        "seed": args.seed,
        "noise": parse_noise(args.noise),
    }


def dataset_options(parser: argparse.ArgumentParser, *, required: bool, use: str = "") -> None:
    """Options of the commands that read a data set, for `use`; `dataset_of` reads them."""
    group = parser.add_argument_group("data set", DETAILS)
    group.add_argument("--dataset", required=required, help=f"{NAMES}{use}")
    group.add_argument(
        "--classes", help="other names of its classes, in its order: a text file, or with commas (default: its own)"
    )
    group.add_argument("--data-dir", type=Path, help="folder of the data set's files (default: as said above)")
    group.add_argument("--split", default="test", help="test (default) or train")


def dataset_of(args: argparse.Namespace) -> Dataset:
    """The data set that `dataset_options` named. Raises `InputError`."""
    names = None if args.classes is None else read_class_names(args.classes)
    return load_dataset(args.dataset, split=args.split, data_dir=args.data_dir, classes=names)


def force_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="write over files that exist")


def numbers(option: str, text: str, kind: Callable[[str], N]) -> list[N]:
    """The numbers of a list with commas. Raises `InputError`."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what, example = ("integers", "0,5,9") if kind is int else ("numbers", "0,0.5,1")
        raise InputError(f"{option} {text!r}; expected comma-separated {what}, e.g. {example}") from None
