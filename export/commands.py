"""`dualsmooth export`: run directory to bundle. Needs torch and onnx only once it exports."""

from __future__ import annotations

import argparse
import shlex
import sys

from dualsmooth.runtime.errors import InputError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `export` command."""
    parser = subparsers.add_parser(
        "export",
        help="turn a run directory into a bundle of ONNX files",
        description="Export a finished run as a bundle: ONNX files, compared with PyTorch, and manifest.json.",
    )
    parser.add_argument("path", metavar="RUN", help="run directory of `dualsmooth train`")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="directory to make; must not exist, or be empty")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export as the arguments say; returns the exit status."""
    try:
        from dualsmooth.export.run import export_run
    except ModuleNotFoundError as error:
        raise InputError(f"export needs {error.name}; pip install 'dualsmooth[export,cpu]'") from error
    bundle = export_run(arguments.path, arguments.out, command=shlex.join(["dualsmooth", *sys.argv[1:]]))
    size = sum((bundle.path / name).stat().st_size for name in bundle.files)
    parity = max(bundle.provenance["parity"].values())
    print(f"{bundle.path}: {', '.join(bundle.files)} ({size / 1e6:.1f} MB), parity with PyTorch {parity:.1g}")
    return 0
