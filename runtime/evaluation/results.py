"""The results file: JSON Lines, one certificate a line, append-only, synced, resumable.

A line is `{"index", "true_label", "dataset", "seconds", "certificate"}`; `seconds` are those of the image's own work,
its share of each batch by passes (`smoothing.meter`). Full counts are kept, so radii can be recomputed under another
alpha or rule without new passes. The first line that an evaluation writes is its header: the seed of the run, from
which those of its images follow, so that what is drawn again after a kill is the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.statistics.rules import RULES

HEADER = "dualsmooth-results"


def header_line(seed: Seed) -> str:
    """The first line of a file: the seed of the run that begins with it."""
    return json.dumps({"format": HEADER, "version": 2, "seed": seed.to_dict()})


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
        return self.certificate.correct_radius(self.true_label)

    @property
    def covered_radius(self) -> float:
        """The certified radius where the answer, label or group, holds the true class; -1 where it does not."""
        return self.certificate.covered_radius(self.true_label)

    def to_json(self) -> str:
        return json.dumps({**vars(self), "certificate": self.certificate.to_dict()}, allow_nan=False)


def load_results(path: str | Path) -> list[Result]:
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
                        f"{path} holds results with {name} {short(configuration.get(name))}, {first[1]} with "
                        f"{short(value)}; merge files of one configuration only"
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
        return Result(*index_and_truth(row), str(row["dataset"]), seconds, made)
    except (CertificateError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = "a line written by `dualsmooth evaluate`"
        if not line.endswith("\n"):
            what = "a whole line: its writer was killed or is at work; run `dualsmooth evaluate` with its options again"
        raise InputError(f"{path}, line {number}: {error}; expected {what}") from error


def index_and_truth(row: dict[str, Any]) -> tuple[int, int]:
    """Index and true label. Raises `ValueError`."""
    index, label = row["index"], row["true_label"]
    if not (type(index) is type(label) is int and 0 <= index < 1 << 63 and abs(label) < 1 << 63):
        raise ValueError("index and true_label must be integers")
    return index, label


def configuration_of(row: dict[str, Any]) -> dict[str, Any]:
    """What must not change within one file: data set, terms, alpha, the artefact, a fixed seed if there is one, which
    levels were sampled (rules can be compared where all were), and what they are derived from, if they are."""
    certificate = row["certificate"]
    artefact, seed = certificate["artefact"], certificate["seed"]
    return {
        "version": certificate["version"],
        "dataset": row["dataset"],
        "alpha": certificate["alpha"],
        **certificate["terms"],
        **coarser_of(certificate["terms"]),
        "manifest": artefact["manifest_sha256"],
        "provider": artefact["provider"],
        "seed": seed["entropy"] if seed["fixed"] else None,
        "noise": str(Seed.from_dict(seed).noise),
        "levels": sampled_levels(
            len(certificate["terms"]["sigmas"]), certificate["votes"], rule=str(certificate["terms"]["rule"])
        ),
        "derived": derived_from(certificate.get("derived")),
    }


def derived_from(derivation: dict[str, Any] | None) -> str | None:
    """What must not change within one file of derived certificates: the old bundle, and the paired passes."""
    if derivation is None:
        return None
    return f"{derivation['old']['manifest_sha256']}, {derivation['passes']} paired passes"


def coarser_of(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The coarser questions that may be asked under some terms, None where there are none."""
    return {name: terms.get(name) for name in ("groups", "at_most")}


def sampled_levels(levels: int, votes: Container[str] | None, *, rule: str = "") -> str:
    """Whether all of `levels` were sampled whatever the rule needed, by the streams that have votes (None: all have).

    Only then both stages have selection votes at every level; a rule by itself asks for less. Under a `rule` that may
    ask for all (`Rule.may_ask_all`) nobody can tell, and all files are "as needed".
    """
    kind = RULES.get(rule.partition(":")[0])
    if kind is not None and kind.may_ask_all and levels > 1:
        return "as needed"
    every = ["estimator/0/selection", *(f"classifier/{level}/selection" for level in range(levels))]
    full = levels == 1 or votes is None or all(stream in votes for stream in every)
    return "all (--all-levels)" if full else "as needed"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (number == 1 and _is_header(line)):
                    yield number, line
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; expected a results file of `dualsmooth evaluate`"
        ) from error


def _is_header(line: str) -> bool:
    try:
        return header_of(line) is not None
    except ValueError:  # damaged: refused as the row that it is not
        return False


def short(value: Any) -> str:
    """A value of a configuration, for messages."""
    return str(value)[:40]
