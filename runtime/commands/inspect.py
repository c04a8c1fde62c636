"""`dualsmooth inspect`: what a bundle is, from its files alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dualsmooth.runtime.bundle.describing import describe, sentences
from dualsmooth.runtime.bundle.reading import read_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    facts = describe(read_bundle(args.bundle))
    print(json.dumps(facts, indent=2) if args.json else sentences(facts))
    return 0
