"""The command line: `dualsmooth COMMAND`. Exit status 0 on success, 2 on bad usage or input, with one line."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from dualsmooth.runtime import commands as runtime_commands
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line

HEAVY = {
    "train": ("dualsmooth.training.commands", "training", "train a classifier and a variance estimator"),
    "export": ("dualsmooth.export.commands", "export", "turn a run directory into a bundle"),
}
"""Commands that need torch: their module, their extra and their help. Imported only when they are called."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        return _run(arguments)
    except DualSmoothError as error:
        print(f"dualsmooth: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dualsmooth: interrupted; finished results are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # such as a name that is too long for the file system
        print(f"dualsmooth: {InputError(f'{error.filename}: {error.strerror or one_line(error)}')}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    parser: argparse.ArgumentParser = _Parser(
        prog="dualsmooth", description="Certified inference by dual randomized smoothing."
    )
    parser.add_argument("--version", action="version", version=f"dualsmooth {version('dualsmooth')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    runtime_commands.register(commands)
    for name, (module, extra, text) in HEAVY.items():
        if arguments[:1] == [name]:
            try:
                importlib.import_module(module).register(commands)
            except ModuleNotFoundError as error:
                raise InputError(f"{name} needs {error.name}; pip install 'dualsmooth[{extra},cpu]'") from error
        else:
            commands.add_parser(name, help=text)
    args = parser.parse_args(arguments)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
