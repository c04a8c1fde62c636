"""`dualsmooth sign`: a signature over a results file, a file of certificates or a bundle (docs/security.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from dualsmooth.runtime.commands.options import examples
from dualsmooth.runtime.evaluation.signing import make_key, sign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(parser, "dualsmooth sign results.jsonl --key key.pem --new")
    parser.add_argument("paths", nargs="+", metavar="path", type=Path, help="results files, certificates, bundles")
    parser.add_argument("--key", type=Path, required=True, help="Ed25519 private key, PEM")
    parser.add_argument("--new", action="store_true", help="make the key first; its public part goes beside it (.pub)")


def run(args: argparse.Namespace) -> int:
    if args.new:
        print(f"{args.key}: a new key; keep it to yourself, and publish {make_key(args.key)}")
    for path in args.paths:
        print(f"{path}: signed in {sign(path, args.key)}")
    return 0
