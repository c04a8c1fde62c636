"""The command line: `dualsmooth COMMAND`. Exit status 0 on success; 2 on bad usage or input, or where the system
refuses (disk full, read-only folder), with one line; 130 and 143 where SIGINT or SIGTERM ended it."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import NoReturn, TextIO

from dualsmooth.runtime.commands import COMMANDS, command
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line


class _Help(argparse.HelpFormatter):
    """Wraps texts, but leaves the lines of examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = max(map(len, COMMANDS)) + 4  # argparse forgets how far commands are indented

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {InputError(message)}; see {self.prog} --help\n")  # what it quotes is cleaned


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        with _terminable():
            status = _run(arguments)
            sys.stdout.flush()  # what cannot be written is told of here, not at exit
            return status
    except DualSmoothError as error:
        return _end(2, str(error))
    except KeyboardInterrupt:
        return _end(130, "interrupted; finished results are kept")
    except _Terminated:
        return _end(143, "terminated; finished results are kept")
    except BrokenPipeError:
        return _end(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        fix = "free some space, or choose a place that can be written"
        return _end(2, str(InputError(f"{where}{error.strerror or one_line(error)}; {fix}")))


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind as SIGINT does, so that temporary files go and finished work is told of."""

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(status: int, line: str = "") -> int:
    """Say why, where stderr can be written; returns the exit status."""
    if line:
        with suppress(OSError):
            print(f"dualsmooth: {' '.join(line.split())}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    return status


def _let_go(stream: TextIO) -> None:
    """What a stream still holds and cannot write is dropped, not written again (and failed on again) at exit."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: list[str]) -> int:
    parser: argparse.ArgumentParser = _Parser(
        prog="dualsmooth",
        description="Certified inference by dual randomized smoothing.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"dualsmooth {version('dualsmooth')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    completing = "_ARGCOMPLETE" in os.environ
    words = os.environ.get("COMP_LINE", "").split()[1:] if completing else arguments
    called = next((word for word in words if not word.startswith("-")), "")
    for name, row in COMMANDS.items():
        chosen = commands.add_parser(name, help=row.help, formatter_class=_Help)
        if name == called:
            module = command(name)
            module.add_arguments(chosen)
            chosen.set_defaults(run=module.run)
    if completing:
        _complete(parser)
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    return int(args.run(args))


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may follow (`dualsmooth completion`), and exit."""
    with suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
