"""The field's log format, as written by Cohen et al. 2019 and by most work since: tab-separated, one image a line.

    idx  label  predict  radius  correct  time
    0    3      3        1.234   1        0:00:02.345678

`predict` is -1 where the method abstained, `radius` has few digits, `time` is hours:minutes:seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.figures import shown
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.results import Result

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
DIGITS = 3


@dataclass(frozen=True)
class LogRow:
    """One image of a log. `label` is None where the method abstained; `seconds` is NaN where the log has no time."""

    index: int
    true_label: int
    label: int | None
    radius: float
    correct: bool
    seconds: float


def is_log(path: str | Path) -> bool:
    """Whether a file starts with the header of a log."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "idx" in file.readline(1000).strip("\r\n").split("\t")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a results file or a TSV log") from error


def read_log(path: str | Path) -> list[LogRow]:
    """The rows of a log, by the names in its header; other columns are left out. Raises `InputError`, with the line."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a TSV log") from error
    names = lines[0].split("\t") if lines else []
    missing = [name for name in COLUMNS[:-1] if name not in names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; expected a header with {', '.join(COLUMNS)}")
    rows: dict[int, LogRow] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = dict(zip(names, line.split("\t"), strict=False))
        try:
            row = _row(cells)
        except (KeyError, ValueError, OverflowError) as error:
            raise InputError(f"{path}, line {number}: {str(error)[:200]}; expected {', '.join(COLUMNS)}") from error
        if row.index in rows:
            raise InputError(f"{path}, line {number}: image {row.index} occurs twice; keep one of its rows")
        rows[row.index] = row
    if not rows:
        raise InputError(f"{path} holds no rows; expected one line an image")
    return list(rows.values())


def _row(cells: dict[str, str]) -> LogRow:
    index, truth, predict = (int(cells[name]) for name in COLUMNS[:3])
    radius, correct = float(cells["radius"]), int(cells["correct"])
    if not math.isfinite(radius):
        raise ValueError(f"radius is {radius}")
    if max(map(abs, (index, truth, predict))) >= 1 << 63:
        raise ValueError("a number has more than 64 bits")
    if correct not in (0, 1) or (correct == 1 and predict != truth):
        raise ValueError(f"correct is {cells['correct']} where label is {truth} and predict {predict}")
    return LogRow(index, truth, None if predict < 0 else predict, radius, correct == 1, _seconds(cells.get("time", "")))


def _seconds(text: str) -> float:
    """Seconds of `[D day[s], ]H:MM:SS[.ffffff]` or of a plain number; NaN where there is no time."""
    if not text.strip():
        return math.nan
    days, _, clock = text.rpartition(", ")
    hours, minutes, seconds = (["0", "0", *clock.split(":")])[-3:]
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
