"""`dualsmooth completion`: lets a shell complete commands, options and what they may be."""

from __future__ import annotations

import argparse

from dualsmooth.runtime.commands.options import examples
from dualsmooth.runtime.errors import InputError

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth completion bash > dualsmooth.bash  # then: source dualsmooth.bash",
        "dualsmooth completion zsh > _dualsmooth",
        "dualsmooth completion fish > dualsmooth.fish",
    )
    parser.add_argument("shell", choices=SHELLS, help="whose script is printed, to be read when the shell starts")


def run(args: argparse.Namespace) -> int:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise InputError("completion needs argcomplete; install it with pip install 'dualsmooth[terminal]'") from error
    print(shellcode(["dualsmooth"], shell=args.shell))
    return 0
