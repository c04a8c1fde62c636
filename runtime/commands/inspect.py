"""`dualsmooth inspect`: what a bundle is, from its files alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dualsmooth.runtime.bundle.describing import bundles, describe, sentences
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.commands.options import BUNDLE_HELP, examples
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.signing import require_signed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth inspect fashion-mnist",
        "dualsmooth inspect fashion-mnist --json",
    )
    parser.add_argument("bundle", nargs="?", help=f"{BUNDLE_HELP}; without it, what ships is listed")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument(
        "--key", type=Path,
        help="check the signature beside the folder: Ed25519 public key, PEM (default: none is checked)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.bundle is None and args.key is not None:
        raise InputError("--key checks the signature beside a bundle's folder; add the folder")
    if args.bundle is None:
        lines = [f"{name}: {line}" for name, line in bundles().items()]
        print(json.dumps(bundles(), indent=2) if args.json else "\n".join(lines))
        return 0
    if args.key is not None:
        signed = require_signed(args.bundle, args.key)
        print(f"{args.bundle}: signed by key {signed[:16]}…, and not altered since", file=sys.stderr)
    facts = describe(read_bundle(args.bundle))
    print(json.dumps(facts, indent=2) if args.json else sentences(facts))
    return 0
