"""The commands: one row each in a table, which alone makes `dualsmooth --help`. A command's module is imported when it
is called.

To add one: a file here with `add_arguments` and `run` (see `Command`), and a row in `COMMANDS`. Commands do not import
each other; what they share is in `options`, or in the room that it is about.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from dualsmooth.runtime.errors import InputError


class Command(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments. Nothing is read or opened here."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit status. What it finds goes to stdout, all else to stderr; raises `DualSmoothError`
        with one line that says what was passed, what was expected and the fix."""


@dataclass(frozen=True)
class Row:
    """A command of the table: its one-line `help`, its module, and the `extra` of the package that it needs."""

    help: str
    module: str
    extra: str = ""


_HERE = "dualsmooth.runtime.commands"
COMMANDS: dict[str, Row] = {
    "demo": Row("certify real images with the bundle that ships in the package", f"{_HERE}.demo"),
    "studio": Row("a page on this machine to certify pictures, watch their votes and attack them", f"{_HERE}.studio"),
    "certify": Row("certificates for PNG, JPEG or NPY images", f"{_HERE}.certify"),
    "predict": Row("labels without radii", f"{_HERE}.predict"),
    "inspect": Row("what a bundle is: levels, files, hashes, provenance, cost of a pass", f"{_HERE}.inspect"),
    "evaluate": Row("certify a data set; appends, resumes after a kill", f"{_HERE}.evaluate"),
    "derive": Row("certificates of a changed bundle, from those of the old one and a few passes", f"{_HERE}.derive"),
    "merge": Row("put the results files of shards together, sorted by index", f"{_HERE}.merge"),
    "report": Row("certified accuracy of results files and TSV logs", f"{_HERE}.report"),
    "plan": Row("predict certified accuracy at other N from a pilot (approximate)", f"{_HERE}.plan"),
    "triton": Row("fill a Triton model repository from a bundle", f"{_HERE}.triton"),
    "doctor": Row("what this machine can do, what is wrong, and how to mend it", f"{_HERE}.doctor"),
    "completion": Row("a script that lets bash, zsh or fish complete commands and options", f"{_HERE}.completion"),
    "verify": Row("recompute a certificate from its counts and check its hashes", f"{_HERE}.verify"),
    "sign": Row(
        "sign results files and bundles, so that altered or dropped rows show", f"{_HERE}.sign", extra="signing"
    ),
    "bench": Row("throughput and efficiency, side by side with a plain PyTorch loop", f"{_HERE}.bench"),
    "train": Row(
        "train a classifier and a variance estimator on a data set; resumable",
        "dualsmooth.training.commands",
        extra="training",
    ),
    "export": Row(
        "turn a run directory, another bundle or ONNX files into a bundle", "dualsmooth.export.commands", extra="export"
    ),
}
"""By the name that is typed, in the order of the help."""


def command(name: str) -> Command:
    """The module of a command of the table. Raises `InputError` where what it needs is not installed."""
    row = COMMANDS[name]
    try:
        return cast(Command, import_module(row.module))
    except ModuleNotFoundError as error:
        if not row.extra:
            raise
        raise InputError(f"{name} needs {error.name}; pip install 'dualsmooth[{row.extra},cpu]'") from error
