"""The one writer of a results file: appends, syncs each line, and resumes what a kill has left."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.results import (
    Result,
    configuration_of,
    header_line,
    header_of,
    index_and_truth,
    short,
)
from dualsmooth.runtime.files import sync_folder
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.accuracy import correct_radius


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
                self._write(header_line(seed))
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
            try:
                if number == 1 and header_of(line):
                    continue
                row = strict_json.loads(line)
                (index, truth), found = index_and_truth(row), configuration_of(row)
                label, radius = row["certificate"]["label"], float(row["certificate"]["radius"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"{self.path}, line {number} is not a result; choose another file with --out"
                ) from error
            for name, value in self.configuration.items():
                if found.get(name) != value:
                    raise InputError(
                        f"{self.path} holds results with {name} {short(found.get(name))}, not {short(value)}; "
                        "choose another file with --out"
                    )
            if index in self.done:
                raise InputError(f"{self.path} holds image {index} twice; drop doubled rows with `dualsmooth merge`")
            self.done.add(index)
            self.truths[index] = truth
            self.order.append(index)
            self.radii.append(correct_radius(label, radius, truth))
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
