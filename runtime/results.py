"""The results file: JSON Lines, one certificate a line, append-only, synced, resumable.

A line is `{"index", "true_label", "dataset", "seconds", "certificate"}`. Full counts are kept, so radii can be
recomputed under another alpha or rule without new passes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.runtime.certificate import Certificate
from dualsmooth.runtime.errors import CertificateError, InputError


@dataclass(frozen=True)
class Result:
    """One certified image of a data set."""

    index: int
    true_label: int
    dataset: str
    seconds: float
    certificate: Certificate

    def to_json(self) -> str:
        return json.dumps({**vars(self), "certificate": self.certificate.to_dict()}, allow_nan=False)


def read_results(path: str | Path) -> list[Result]:
    """All results in a file, every certificate recomputed from its counts. Raises `InputError`, with the line."""
    path = Path(path)
    results = []
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            certificate = Certificate.from_dict(row["certificate"])
            values = (row["index"], row["true_label"], row["dataset"], row["seconds"])
        except (CertificateError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: {error}; expected a line written by `dualsmooth evaluate`"
            ) from error
        if type(values[0]) is not int or type(values[1]) is not int:
            raise InputError(f"{path}, line {number}: index and true_label must be integers")
        results.append(Result(values[0], values[1], str(values[2]), float(values[3]), certificate))
    if not results:
        raise InputError(f"{path} holds no results; run `dualsmooth evaluate` first")
    return results


class ResultsWriter:
    """Appends results to a file. On opening, a torn last line is cut off, and `done` lists the indices that are there.

    Raises `InputError` if the file holds results of another configuration (`configuration` of a row).
    """

    def __init__(self, path: str | Path, configuration: dict[str, Any]) -> None:
        self.path, self.configuration = Path(path), configuration
        self.done: set[int] = set()
        self.repaired = False
        if self.path.exists():
            self._resume()
        try:
            self._file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror}; choose a file that can be written"
            ) from error

    def _resume(self) -> None:
        raw = self.path.read_bytes()
        end = raw.rfind(b"\n") + 1
        for number, line in enumerate(raw[:end].decode(errors="replace").splitlines(), 1):
            try:
                row = json.loads(line)
                index, found = row["index"], configuration_of(row)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.path}, line {number} is not a result; choose another file with --out"
                ) from error
            for name, value in self.configuration.items():
                if found.get(name) != value:
                    raise InputError(
                        f"{self.path} holds results with {name} {_short(found.get(name))}, not {_short(value)}; "
                        "choose another file with --out"
                    )
            self.done.add(index)
        if end < len(raw):
            self.repaired = True
            with open(self.path, "r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())

    def append(self, result: Result) -> None:
        """Write one line and sync it to the disk."""
        try:
            self._file.write(result.to_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; free some space and run again") from error
        self.done.add(result.index)

    def close(self) -> None:
        self._file.close()


def configuration_of(row: dict[str, Any]) -> dict[str, Any]:
    """What must not change within one file: data set, terms, alpha, the artefact, and a fixed seed if there is one."""
    certificate = row["certificate"]
    artefact, seed = certificate["artefact"], certificate["seed"]
    return {
        "dataset": row["dataset"],
        "alpha": certificate["alpha"],
        **certificate["terms"],
        "manifest": artefact["manifest_sha256"],
        "provider": artefact["provider"],
        "seed": seed["entropy"] if seed["fixed"] else None,
    }


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; expected a results file of `dualsmooth evaluate`"
        ) from error


def _short(value: Any) -> str:
    return str(value)[:40]
