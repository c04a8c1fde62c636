"""Classes are matched by their names: the one place that brings a data set's labels into a bundle's order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError

Labels = npt.NDArray[np.int64]


def read_class_names(text: str) -> tuple[str, ...]:
    """The names that an option `--classes` gives: how many (their numbers are the names), names with commas, or a text
    file with one a line. Raises `InputError`."""
    if text.isascii() and text.isdecimal() and len(text) < 7:
        return numbered(int(text))
    if Path(text).is_file():
        try:
            lines = Path(text).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {text} ({error}); expected a text file with a class name a line") from error
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(name.strip() for name in text.split(","))


def numbered(count: int) -> tuple[str, ...]:
    """The names of `count` classes that have none: 0, 1, 2, …"""
    return tuple(map(str, range(count)))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted; by number where all are numbers (2 before 10)."""
    found = sorted(names)
    return tuple(sorted(found, key=int) if all(n.isascii() and n.isdecimal() for n in found) else found)


def match_labels(
    labels: Labels,
    theirs: Sequence[str],
    ours: Sequence[str],
    *,
    data: str,
    owner: str,
    indexed: bool = False,
    fix: str = "",
) -> Labels:
    """`labels` [N], numbers in the order of the names `theirs`, as numbers in the order of `ours`.

    Without `theirs` the numbers stay; they do too for data sets whose numbers are fixed by their publishers (`indexed`)
    where `ours` are as many numbers. Names match where they are equal, or alone are equal but for case, spaces, `_`,
    `-` and `/`; numbers match as numbers. Names that no label uses need no match. `data` and `owner` say in errors
    whose names they are, `fix` what to do where none has a match. Raises `InputError` where a name has no match, or
    several.
    """
    if not len(labels):
        return labels
    low, high = int(labels.min()), int(labels.max())
    most = len(theirs or ours)
    if low < 0 or high >= most:
        whose = f"{len(theirs)} names of classes" if theirs else f"{most} classes of {owner}"
        one_off = " (they seem to count from 1: subtract 1)" if low >= 1 and high == most else ""
        raise InputError(f"{data} has labels from {low} to {high} for {whose}; expected 0 to {most - 1}{one_off}")
    if not theirs or tuple(theirs) == tuple(ours) or (indexed and tuple(ours) == numbered(len(theirs))):
        return labels
    used = np.unique(labels)
    place = _places([theirs[label] for label in used], ours, data, owner, fix)
    table = np.full(len(theirs), -1, np.int64)
    table[used] = [place[theirs[label]] for label in used]
    return table[labels]


def _places(theirs: Sequence[str], ours: Sequence[str], data: str, owner: str, fix: str) -> Mapping[str, int]:
    """Where each of `theirs` stands in `ours`."""
    same: dict[str, list[int]] = {}
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(ours):
        same.setdefault(name, []).append(number)
        alike.setdefault(_key(name), []).append(number)
    found = {name: same.get(name) or alike.get(_key(name), []) for name in theirs}
    missing = [name for name, numbers in found.items() if not numbers]
    if missing:
        raise InputError(_difference(missing, len(theirs), ours, data, owner, fix))
    several = next((name for name, numbers in found.items() if len(numbers) > 1), None)
    place = {name: numbers[0] for name, numbers in found.items()}
    taken = {number: name for name, number in place.items()}
    twice = next((name for name in theirs if taken[place[name]] != name), None)
    if several is not None or twice is not None or len(found) < len(theirs):
        name = several or twice or next(name for name in theirs if theirs.count(name) > 1)
        raise InputError(
            f"{data}: class {name!r} is not the only one that fits a class of {owner} of that name; rename one of them"
        )
    return place


def _difference(missing: Sequence[str], used: int, ours: Sequence[str], data: str, owner: str, fix: str) -> str:
    some = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    have = ", ".join(map(repr, ours[:5])) + (", …" if len(ours) > 5 else "")
    if len(missing) < used:
        fix = "rename them"
    elif not fix:
        fix = f"say with --classes how {owner} calls the classes of the data set, in the data set's order"
        if tuple(ours) == numbered(len(ours)):
            fix += f" (--classes {len(ours)}, if the data set's sorted order is that of the network's outputs)"
        elif all(re.fullmatch(r"n\d{8}", name) for name in missing):
            fix += " (a text file with a name for each of these WordNet ids)"
    return f"{data} has classes that {owner} has not: {some}; expected some of {have}: {fix}"


def _key(name: str) -> str:
    """What names have in common that are written differently."""
    text = unicodedata.normalize("NFKC", name).strip()
    if re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text, re.ASCII):
        return str(int(text.partition(".")[0]))
    return re.sub(r"[\s_/-]+", " ", text.casefold()).strip()
