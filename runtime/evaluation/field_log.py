"""The field's log format, as written by Cohen et al. 2019 and by most work since: tab-separated, one image a line.

    idx  label  predict  radius  correct  time
    0    3      3        1.234   1        0:00:02.345678

`predict` is -1 where the method abstained, `radius` has few digits, `time` is hours:minutes:seconds. What other tools
make of it is read as well (docs/evaluation.md lists it): `label` and `predict` decide what is correct.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.rounding import shown

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
DIGITS = 3
_NEEDED = COLUMNS[:4]
_CALLED = {
    "idx": ("idx", "index", "id"),
    "label": ("label", "true_label", "target"),
    "predict": ("predict", "prediction", "pred", "predicted"),
    "radius": ("radius", "certified_radius", "cert_radius"),
    "correct": ("correct",),
    "time": ("time", "time_elapsed", "seconds"),
}
_DELIMITERS = ("\t", ",", ";", "|", None)
_HEAD = 1 << 16
_BLANK = ("", "nan", "none", "null", "-")
_ABSTAINED = (*_BLANK, "abstain", "abstained")


@dataclass(frozen=True)
class LogRow:
    """One image of a log. `label` is None where the method abstained; `seconds` is NaN where the log has no time."""

    index: int
    true_label: int
    label: int | None
    radius: float
    correct: bool
    seconds: float


@dataclass(frozen=True)
class _Header:
    """Where a log's columns are: the line of its header, what separates cells, all names, and the place of ours."""

    line: int
    delimiter: str | None
    names: tuple[str, ...]
    place: dict[str, int]


def is_log(path: str | Path) -> bool:
    """Whether a file begins with the header of a log; False for results. Raises `InputError` where it is neither."""
    lines = _lines(path, _HEAD)
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first or first.startswith("{"):
        return False
    if _header(lines) is None:
        raise InputError(
            f"{path} is neither results of `dualsmooth evaluate` nor a log with a header of {', '.join(COLUMNS)}; it "
            f"begins with {first[:40]!r}"
        )
    return True


def read_log(path: str | Path) -> list[LogRow]:
    """The rows of a log, by the names in its header; other columns are left out. Raises `InputError`, with the line."""
    lines = _lines(path)
    header = _header(lines)
    missing = [name for name in _NEEDED if header is None or name not in header.place]
    if header is None or missing:
        raise InputError(f"{path} has no column {missing[0]}; expected a header with {', '.join(COLUMNS)}")
    rows: dict[int, LogRow] = {}
    flags: list[tuple[int, LogRow, float | None]] = []
    for number, line in enumerate(lines[header.line :], header.line + 1):
        if not line.strip() or line.lstrip().startswith(("#", "%")):
            continue
        try:
            cells = _cells(line, header.delimiter, len(header.names))
            if tuple(cell.strip().lower() for cell in cells) == header.names:
                continue  # logs that were put together
            row, flag = _row(cells, header)
        except (ValueError, OverflowError, csv.Error) as error:
            raise InputError(f"{path}, line {number}: {str(error)[:200]}; expected {', '.join(COLUMNS)}") from error
        if row.index in rows:
            raise InputError(f"{path}, line {number}: image {row.index} occurs twice; keep one of its rows")
        rows[row.index] = row
        flags.append((number, row, flag))
    if not rows:
        raise InputError(f"{path} holds no rows; expected one line an image")
    _check_flags(path, flags)
    return list(rows.values())


def _lines(path: str | Path, most: int = -1) -> list[str]:
    """The lines of the first `most` bytes, whatever the editor made of their encoding."""
    try:
        with open(path, "rb") as file:
            raw = file.read(most)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a results file or a TSV log") from error
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return raw.decode(encoding, errors="replace").splitlines()


def _header(lines: Sequence[str]) -> _Header | None:
    """The header among the first lines: the first one that names two of our columns at least."""
    for number, line in enumerate(lines[:50], 1):
        for delimiter in _DELIMITERS:
            text = line.lstrip("#% ")
            names = tuple(name.strip().lower() for name in _cells(text, delimiter))
            place = {
                ours: names.index(theirs[0])
                for ours, called in _CALLED.items()
                if (theirs := [name for name in called if names.count(name) == 1])
            }
            if len(place) > 1:
                return _Header(number, delimiter, names, place)
    return None


def _cells(line: str, delimiter: str | None, count: int = 0) -> list[str]:
    """The cells of a line; where `count` are expected, `1 day, 0:00:01` is one cell. Raises `ValueError`."""
    if delimiter is None:
        cells = line.split(None, count - 1 if count else -1)
    else:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    if count:
        while len(cells) > count and not cells[-1].strip():
            cells.pop()
        if len(cells) == count + 1 and re.fullmatch(r"\d+ days?", cells[-2].strip()):
            cells[-2:] = [f"{cells[-2]}, {cells[-1]}"]
        if len(cells) != count:
            raise ValueError(f"{len(cells)} cells where the header has {count}")
    return cells


def _row(cells: Sequence[str], header: _Header) -> tuple[LogRow, float | None]:
    """One image, and what its row says about being correct. Raises `ValueError`."""
    of = {name: _bare(cells[place], header.delimiter) for name, place in header.place.items()}
    index, truth, shown_radius = _integer(of["idx"]), _integer(of["label"]), of["radius"].lower()
    abstained = of["predict"].lower() in _ABSTAINED
    if abstained and not of["predict"] and shown_radius not in (*_BLANK, "0", "0.0"):
        raise ValueError("predict is empty")
    predict = -1 if abstained else _integer(of["predict"])
    label = None if predict < 0 else predict
    radius = 0.0 if label is None and shown_radius in _BLANK else float(shown_radius)
    if not math.isfinite(radius) or (radius < 0 and label == truth):
        raise ValueError(f"radius is {radius}")
    if index < 0 or max(map(abs, (index, truth, predict))) >= 1 << 63:
        raise ValueError("a number has more than 64 bits, or idx is negative")
    row = LogRow(index, truth, label, radius, label == truth, _seconds(of.get("time", "")))
    return row, _flag(of.get("correct", ""))


def _bare(cell: str, delimiter: str | None) -> str:
    """A cell without what printing tensors and NumPy's numbers leaves around it; decimal commas become points."""
    cell = cell.strip()
    if wrapped := re.fullmatch(r"(?:tensor|np\.\w+)\(([^,()]*).*\)", cell):
        cell = wrapped[1].strip()
    return re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) if delimiter == ";" else cell


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,30}(\.0*)?", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is no integer")
    return int(text.partition(".")[0])


def _flag(text: str) -> float | None:
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    return None if text.lower() in _BLANK else float(text)


def _check_flags(path: str | Path, flags: Sequence[tuple[int, LogRow, float | None]]) -> None:
    """Refuse a column `correct` of zeros and ones that contradicts label and predict; other ones count or average."""
    given = [(number, row, flag) for number, row, flag in flags if flag is not None]
    if any(flag not in (0, 1) for _, _, flag in given):
        return
    count = 0
    wrong, counts = None, True
    for number, row, flag in given:
        count += row.correct
        counts = counts and flag == count
        if wrong is None and flag != row.correct:
            wrong = number, row, flag
    if wrong is not None and not counts:
        number, row, flag = wrong
        raise InputError(
            f"{path}, line {number}: correct is {flag:g} where label is {row.true_label} and predict "
            f"{-1 if row.label is None else row.label}; mend the row, or leave the column out"
        )


def _seconds(text: str) -> float:
    """Seconds of `[D day[s], ]H:MM:SS[.ffffff]` or of a plain number; NaN where there is no time."""
    if text.strip().lower() in _BLANK:
        return math.nan
    days, comma, clock = text.rpartition(", ")
    if comma and not days:
        raise ValueError(f"time is {text[:40]!r}")
    hours, minutes, seconds = (["0", "0", *clock.removesuffix("s").split(":")])[-3:]
    total = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    total += 86400 * int(days.partition(" ")[0]) if days else 0
    if not 0 <= total < math.inf:
        raise ValueError(f"time is {text[:40]!r}")
    return total


def write_log(rows: Iterable[Result], out: str | Path) -> None:
    """Write a log. Radii keep three decimals and are rounded down: a log never says more than was certified."""
    lines = ["\t".join(COLUMNS)]
    for row in sorted(rows, key=lambda r: r.index):
        certificate = row.certificate
        label = -1 if certificate.label is None else certificate.label
        radius = shown(certificate.radius, DIGITS)
        correct = int(label == row.true_label)
        time = timedelta(seconds=max(0.0, row.seconds))
        lines.append(f"{row.index}\t{row.true_label}\t{label}\t{radius}\t{correct}\t{time}")
    write_atomically(out, "\n".join(lines) + "\n")
