"""The results file: JSON Lines, one certificate a line, append-only, synced, resumable.

A line is `{"index", "true_label", "dataset", "seconds", "certificate"}`. Full counts are kept, so radii can be
recomputed under another alpha or rule without new passes. The first line that an evaluation writes is its header: the
seed of the run, from which those of its images follow, so that what is drawn again after a kill is the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.files import check_free, sync_folder, write_atomically
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.smoothing.certificate import Certificate

HEADER = "dualsmooth-results"


def header_of(line: str) -> dict[str, Any] | None:
    """The header in a line, if it is one. Raises `ValueError` for a damaged one."""
    if HEADER not in line[:60]:
        return None
    found = strict_json.loads(line)
    return found if isinstance(found, dict) and found.get("format") == HEADER else None


@dataclass(frozen=True)
class Result:
    """One certified image of a data set."""

    index: int
    true_label: int
    dataset: str
    seconds: float
    certificate: Certificate

    @property
    def correct_radius(self) -> float:
        """The certified radius where the label is correct; -1 where it is wrong or abstained."""
        return self.certificate.radius if self.certificate.label == self.true_label else -1.0

    def to_json(self) -> str:
        return json.dumps({**vars(self), "certificate": self.certificate.to_dict()}, allow_nan=False)


def read_results(path: str | Path) -> list[Result]:
    """All results in a file, every certificate recomputed from its counts. Raises `InputError`, with the line."""
    path = Path(path)
    results = [_result(path, number, line) for number, line in _lines(path)]
    if not results:
        raise InputError(f"{path} holds no results; run `dualsmooth evaluate` first")
    twice = [index for index, times in Counter(r.index for r in results).items() if times > 1]
    if twice:
        raise InputError(f"{path} holds image {twice[0]} twice; drop doubled rows with `dualsmooth merge`")
    return results


def merge_results(paths: Iterable[str | Path], out: str | Path, *, force: bool = False) -> tuple[int, int]:
    """Write the rows of several files (shards of one evaluation), sorted by index, to `out`, all of it or nothing.

    Returns how many rows there are, and how many were dropped because an equal one was there. Raises `InputError` for
    files of different configurations, for two different rows of one image, for torn or altered rows, and, without
    `force`, where `out` exists.
    """
    check_free(out, force)
    rows: dict[int, tuple[str, Path, dict[str, Any]]] = {}
    first: tuple[dict[str, Any], Path] | None = None
    dropped = 0
    for path in map(Path, paths):
        for number, line in _lines(path):
            if not line.endswith("\n"):
                raise InputError(f"{path}, line {number} is torn; run `dualsmooth evaluate` with its options again")
            result = _result(path, number, line)
            row = strict_json.loads(line)
            configuration = configuration_of(row)
            first = first or (configuration, path)
            for name, value in first[0].items():
                if configuration.get(name) != value:
                    raise InputError(
                        f"{path} holds results with {name} {_short(configuration.get(name))}, {first[1]} with "
                        f"{_short(value)}; merge files of one configuration only"
                    )
            old = rows.get(result.index)
            for what in ("certificate", "true label"):
                name = what.replace(" ", "_")
                if old is not None and old[2][name] != row[name]:
                    raise InputError(
                        f"{path}, line {number}: image {result.index} has another {what} in {old[1]}; keep one of them"
                    )
            dropped += old is not None
            rows.setdefault(result.index, (line, path, row))
    if not rows:
        raise InputError("there are no rows to merge; expected files of `dualsmooth evaluate`")
    write_atomically(out, "".join(rows[index][0] for index in sorted(rows)))
    return len(rows), dropped


def _result(path: Path, number: int, line: str) -> Result:
    try:
        row = strict_json.loads(line)
        if set(row) != set(Result.__dataclass_fields__):
            raise ValueError(f"it does not hold {', '.join(Result.__dataclass_fields__)}")
        made, seconds = Certificate.from_dict(row["certificate"]), float(row["seconds"])
        if not 0 <= seconds < 1e10:
            raise ValueError(f"seconds is {seconds:g}")
        return Result(*_integers(row), str(row["dataset"]), seconds, made)
    except (CertificateError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = "a line written by `dualsmooth evaluate`"
        if not line.endswith("\n"):
            what = "a whole line: its writer was killed or is at work; run `dualsmooth evaluate` with its options again"
        raise InputError(f"{path}, line {number}: {error}; expected {what}") from error


def _integers(row: dict[str, Any]) -> tuple[int, int]:
    """Index and true label. Raises `ValueError`."""
    index, label = row["index"], row["true_label"]
    if not (type(index) is type(label) is int and 0 <= index < 1 << 63 and abs(label) < 1 << 63):
        raise ValueError("index and true_label must be integers")
    return index, label


class ResultsWriter:
    """Appends results to a file, as its only writer. On opening, a torn last line is cut off; `done` holds the indices
    that are there; `order` lists them, `radii` their certified radii (-1 where wrong or abstained), and `truths` has
    the true labels of those that were there before.

    Raises `InputError` if another process writes to the file, if the file holds results of another configuration
    (`configuration_of` a row), or an image twice.
    """

    def __init__(self, path: str | Path, configuration: dict[str, Any], seed: Seed | None = None) -> None:
        """`seed`: of a new run; `self.seed` is that of the file, which holds it from its first line on. None: the rows
        come from elsewhere, and no header is written."""
        self.path, self.configuration, self.seed = Path(path), configuration, seed
        self.done: set[int] = set()
        self.truths: dict[int, int] = {}
        self.order: list[int] = []
        self.radii: list[float] = []
        self.repaired = False
        try:
            self._fresh = not self.path.exists()
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            if self._fresh:
                sync_folder(self.path.parent)
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror}; choose a file that can be written"
            ) from error
        try:
            _lock(self._file, self.path)
            self._end = self._resume()
            if seed is not None and self._end == 0:
                self._write(json.dumps({"format": HEADER, "version": 2, "seed": seed.to_dict()}))
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise InputError(f"cannot use {self.path}: {error.strerror}; choose another file with --out") from error
            raise

    def _resume(self) -> int:
        """Read what is there and cut off a torn last line; returns where the next line begins."""
        raw = self.path.read_bytes()
        end = raw.rfind(b"\n") + 1
        lines = raw[:end].decode(errors="replace").split("\n")[:-1]
        for number, line in enumerate(lines, 1):
            if number == 1 and HEADER in line[:60]:
                continue
            try:
                row = strict_json.loads(line)
                (index, truth), found = _integers(row), configuration_of(row)
                label, radius = row["certificate"]["label"], float(row["certificate"]["radius"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"{self.path}, line {number} is not a result; choose another file with --out"
                ) from error
            for name, value in self.configuration.items():
                if found.get(name) != value:
                    raise InputError(
                        f"{self.path} holds results with {name} {_short(found.get(name))}, not {_short(value)}; "
                        "choose another file with --out"
                    )
            if index in self.done:
                raise InputError(f"{self.path} holds image {index} twice; drop doubled rows with `dualsmooth merge`")
            self.done.add(index)
            self.truths[index] = truth
            self.order.append(index)
            self.radii.append(radius if label == truth else -1.0)
        if lines and self.seed is not None:
            self.seed = self._seed_of(lines[0], self.seed)
        if end < len(raw):
            self.repaired = True
            self._file.truncate(end)
            os.fsync(self._file.fileno())
        return end

    def _seed_of(self, line: str, seed: Seed) -> Seed:
        """The seed of the run that the file holds, by its first line. Raises `InputError`."""
        try:
            header = header_of(line)
            held = None if header is None else Seed.from_dict(header["seed"])
        except (CertificateError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path}, line 1 is not a result; choose another file with --out") from error
        if held is None:
            if seed.fixed:
                return seed
            raise InputError(
                f"{self.path} has no header (merged files have none), so its run's seed is not known; evaluate the "
                "other images into another file with --out, and merge both"
            )
        same = held.fixed == seed.fixed and (not seed.fixed or held.entropy == seed.entropy)
        if not same or held.noise != seed.noise:
            raise InputError(
                f"{self.path} was begun with {_words(held)}, not {_words(seed)}; choose another file with --out"
            )
        return held

    def append(self, result: Result) -> None:
        """Write one line and sync it to the disk; where that fails, the file keeps the lines before it."""
        self._write(result.to_json())
        self.done.add(result.index)
        self.order.append(result.index)
        self.radii.append(result.correct_radius)

    def _write(self, text: str) -> None:
        line = text.encode() + b"\n"
        try:
            left = line
            while left:  # unbuffered: nothing is written again when the file is closed
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise InputError(f"cannot write {self.path}: {error.strerror}; free some space and run again") from error
        self._end += len(line)

    def close(self) -> None:
        """Close the file; one that was made here and got no line is removed."""
        if self._fresh and not self._end:
            with suppress(OSError):
                self.path.unlink()
        self._file.close()


def configuration_of(row: dict[str, Any]) -> dict[str, Any]:
    """What must not change within one file: data set, terms, alpha, the artefact, a fixed seed if there is one, and
    which levels were sampled (rules can be compared where all were)."""
    certificate = row["certificate"]
    artefact, seed = certificate["artefact"], certificate["seed"]
    return {
        "version": certificate["version"],
        "dataset": row["dataset"],
        "alpha": certificate["alpha"],
        **certificate["terms"],
        "manifest": artefact["manifest_sha256"],
        "provider": artefact["provider"],
        "seed": seed["entropy"] if seed["fixed"] else None,
        "noise": str(Seed.from_dict(seed).noise),
        "levels": sampled_levels(len(certificate["terms"]["sigmas"]), certificate["votes"]),
    }


def sampled_levels(levels: int, votes: Container[str] | None) -> str:
    """Whether all of `levels` were sampled whatever the rule needed, by the streams that have votes (None: all have).

    Only then both stages have selection votes at every level; a rule by itself asks for less.
    """
    every = ["estimator/0/selection", *(f"classifier/{level}/selection" for level in range(levels))]
    full = levels == 1 or votes is None or all(stream in votes for stream in every)
    return "all (--all-levels)" if full else "as needed"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (number == 1 and HEADER in line[:60]):
                    yield number, line
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; expected a results file of `dualsmooth evaluate`"
        ) from error


def _lock(file: FileIO, path: Path) -> None:
    """Make this process the only writer; the system frees the lock however the process ends."""
    try:
        import fcntl
    except ImportError as error:
        raise InputError(f"cannot lock {path}: evaluations need a POSIX system") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path} is being written by another process; wait for it, or end it") from error


def _words(seed: Seed) -> str:
    return f"{'seed ' + str(seed.entropy) if seed.fixed else 'no fixed seed'}, noise {seed.noise}"


def _short(value: Any) -> str:
    return str(value)[:40]
