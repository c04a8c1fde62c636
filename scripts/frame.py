"""What scripts that make pages have in common: where the page goes, measurements that go on, images, the machine.

A script that imports this one ends with a line, not a traceback, where what it was given cannot be used.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from dualsmooth.runtime.engine.instruction_set import described
from dualsmooth.runtime.errors import DualSmoothError, InputError
from dualsmooth.runtime.files import check_free, write_atomically

RESULTS = Path(__file__).parent.parent / "docs" / "results"
VOTES = RESULTS / "fashion-mnist-all-levels.jsonl"
"""The committed votes of the Fashion-MNIST bundle that ships, every level sampled in full."""
USABLE = 8000
"""Test images from this one on are left alone, for final measurements."""


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, DualSmoothError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _told


def add_page(parser: ArgumentParser, flag: str = "--out", says: str = "write the page here as well") -> None:
    """The options `flag` (args.page) and --force."""
    parser.add_argument(flag, dest="page", type=Path, metavar=flag.strip("-").upper(), help=says)
    parser.add_argument("--force", action="store_true", help=f"write over {flag}")


def parsed(parser: ArgumentParser, arguments: Sequence[str] | None = None) -> Namespace:
    """The arguments of a parser with `add_page`; raises `InputError` before any work where the page would be written
    over another one."""
    args = parser.parse_args(arguments)
    if args.page:
        check_free(args.page, args.force)
    return args


def publish(page: str, out: Path | None) -> None:
    """Print the page, and write it to `out` where that is given."""
    print(page)
    if out:
        write_atomically(out, page)


def sections(page: str, mark: str = "##") -> dict[str, str]:
    """The sections of a page by title, without what stands before the first. `mark`: of their headings."""
    found = {}
    for part in f"\n{page}".split(f"\n{mark} ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = body.strip()
    return found


def joined(head: str, bodies: Mapping[str, str], mark: str = "##") -> str:
    """A page of what stands before the first section, and sections by title."""
    return f"{head.rstrip()}\n" + "".join(f"\n{mark} {title}\n\n{body}\n" for title, body in bodies.items())


def publish_part(head: str, found: Mapping[str, str], order: Sequence[str], out: Path | None) -> None:
    """`publish` a page with the sections `found`, by title, beside those of `order` that it has already."""
    known = {**(sections(out.read_text("utf-8")) if out and out.exists() else {}), **found}
    publish(joined(head, {title: known[title] for title in order if title in known}), out)


class Measurements:
    """Rows of a JSON Lines file, by what each is about, row[key]: a run that was stopped goes on where it was.

    Rows name the `settings` that they were made with; `InputError` where the file's are others. A row that was being
    written is dropped.
    """

    def __init__(self, path: Path, key: str, settings: Mapping[str, Any] | None = None) -> None:
        self._path, self._key = path, key
        self._more = {} if settings is None else {"settings": settings}
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        if any(row.get("settings") != settings for row in rows):
            raise InputError(f"{path} holds measurements with other settings; choose another --results")
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        self.rows = {row[key]: row for row in rows}

    def __contains__(self, what: object) -> bool:
        return what in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def found(self, what: str, measure: Callable[[], Any]) -> Any:
        """What was measured before the last stop; else what `measure` gives now, which is kept."""
        if what not in self:
            say(what)
            self.add({self._key: what, "found": measure()})
        return self.rows[what]["found"]

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, here and in the file."""
        self.rows[row[self._key]] = full = {**row, **self._more}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(full) + "\n")


def say(text: str) -> None:
    """A line about what is being done, beside the page."""
    print(text, file=sys.stderr, flush=True)


def every(count: int, name: str = "") -> Callable[[object, int, int], None]:
    """The `progress` of an evaluation: a line for every so many images."""

    def progress(_: object, done: int, total: int) -> None:
        if done % count == 0:
            say(f"{name}{done}/{total}")

    return progress


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(*packages: str) -> str:
    """What figures depend on: cores, processor, its instructions, system, versions of packages."""
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in packages)
    return f"{cores()} cores of an {described()}, {platform.platform()}; {versions}"


def helper(name: str) -> ModuleType:
    """A module of tests/support."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
    return importlib.import_module(name)
