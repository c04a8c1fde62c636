"""`dualsmooth inspect`: what a bundle is, from its files alone."""

from __future__ import annotations

import argparse
import json

from dualsmooth.runtime.bundle.describing import bundles, describe, sentences
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.commands.options import BUNDLE_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", help=f"{BUNDLE_HELP}; without it, what ships is listed")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    if args.bundle is None:
        lines = [f"{name}: {line}" for name, line in bundles().items()]
        print(json.dumps(bundles(), indent=2) if args.json else "\n".join(lines))
        return 0
    facts = describe(read_bundle(args.bundle))
    print(json.dumps(facts, indent=2) if args.json else sentences(facts))
    return 0
