"""The fields of a manifest, each checked by itself: what is wrong is said with its name and what it must be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from dualsmooth.runtime.bundle.preprocessing import LARGEST_SIDE, Preprocessing
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.runtime.graphs.precision import PRECISIONS
from dualsmooth.runtime.statistics.groups import Groups

OPTIMISATIONS = ("extended", "basic", "disabled")
"""Levels of ONNX Runtime's graph optimisation below all of it, for files of which it crashes there."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.(onnx|data)")


class Fields:
    """The manifest at `path`, as JSON gave it. Each method returns one field, checked, or raises `BundleError`."""

    def __init__(self, path: Path, values: Any) -> None:
        self._path = path
        self._need(isinstance(values, dict), "the top level must be an object")
        self._values: Mapping[str, Any] = values

    def _need(self, ok: bool, what: str) -> None:
        if not ok:
            raise BundleError(f"{self._path}: {what}; export the bundle again")

    def require(self, format: str, version: int) -> None:
        """That the manifest is of this format and version."""
        found = {key: str(self._values.get(key))[:40] for key in ("format", "version")}
        self._need(self._values.get("format") == format, f"format must be {format!r}, found {found['format']!r}")
        stated = self._values.get("version")
        self._need(_whole(stated) and stated == version, f"version must be {version}, found {found['version']}")

    def sigmas(self) -> tuple[float, ...]:
        values = self._values.get("sigmas")
        self._need(
            isinstance(values, list) and 1 <= len(values) <= 64 and all(map(_number, values)),
            "sigmas must be 1 to 64 numbers",
        )
        numbers = tuple(float(value) for value in values or ())
        self._need(numbers[0] > 0 and all(a < b for a, b in pairwise(numbers)), "sigmas must be positive and ascending")
        return numbers

    def routed(self) -> bool:
        """Whether there is a router; a bundle of one level may do without."""
        stated = [key for key in ("estimator", "sigma_e") if key in self._values]
        if not stated and len(self.sigmas()) == 1:
            return False
        missing = {"estimator", "sigma_e"}.difference(stated)
        why = "only one of the sigmas alone needs neither" if len(missing) == 2 else "they go together"
        self._need(not missing, f"{' and '.join(sorted(missing))} must be there: {why}")
        return True

    def sigma_e(self) -> float:
        value: Any = self._values.get("sigma_e")
        self._need(_number(value) and value > 0, "sigma_e must be a positive number")
        return float(value)

    def input_shape(self) -> tuple[int, int, int]:
        source: Any = self._values.get("input")
        shape: Any = source.get("shape") if isinstance(source, dict) else None
        self._need(
            isinstance(shape, list) and len(shape) == 3 and all(_whole(n) and 1 <= n <= LARGEST_SIDE for n in shape),
            f"input.shape must be [C, H, W] with sizes from 1 to {LARGEST_SIDE}",
        )
        self._need(math.prod(shape) <= 1 << 26, "input.shape has more than 2^26 values")
        limits = source.get("range")
        self._need(
            isinstance(limits, list) and all(map(_number, limits)) and limits == [0, 1],
            "input.range must be [0, 1]: normalisation belongs inside the graph",
        )
        return int(shape[0]), int(shape[1]), int(shape[2])

    def preprocessing(self, shape: tuple[int, int, int]) -> Preprocessing | None:
        """How pictures become inputs of `shape`, where that is stated."""
        if "preprocessing" not in self._values:
            return None
        return Preprocessing.of(self._values["preprocessing"], shape, self._need)

    def classes(self) -> tuple[str, ...]:
        names: Any = self._values.get("classes")
        self._need(
            isinstance(names, list) and 2 <= len(names) <= 100_000 and all(isinstance(name, str) for name in names),
            "classes must be at least 2 names",
        )
        return tuple(names)

    def groups(self, classes: int) -> Groups | None:
        """Named sets of the classes, where there are some."""
        value: Any = self._values.get("groups")
        if "groups" not in self._values:
            return None
        try:
            return Groups.of(value, classes)
        except InputError as error:
            raise BundleError(f"{self._path}: {error}; export the bundle again") from error

    def sure(self, levels: int) -> tuple[float, ...]:
        """How probable the arg max of a sure vote is, at each level above the smallest; empty where every vote is."""
        values: Any = self._values.get("sure", [])
        self._need(
            isinstance(values, list) and all(_number(value) and 0 < value < 1 for value in values),
            "sure must be numbers between 0 and 1",
        )
        self._need(
            "sure" not in self._values or 0 < len(values) == levels - 1,
            f"sure must have one number for each of the {levels - 1} levels above the smallest",
        )
        return tuple(map(float, values))

    def precision(self) -> str:
        value: Any = self._values.get("precision")
        self._need(value in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}")
        return str(value)

    def files(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        files: Any = self._values.get("files")
        self._need(
            isinstance(files, dict) and 1 <= len(files) <= 4096, "files must map 1 to 4096 files to their sha256"
        )
        hashes: dict[str, str] = {}
        for name, entry in files.items():
            self._need(
                _FILE_NAME.fullmatch(name) is not None,
                f"{name[:60]!r} is not a plain file name that ends in .onnx or .data",
            )
            sha: Any = entry.get("sha256") if isinstance(entry, dict) else None
            self._need(
                isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) is not None,
                f"files.{name}.sha256 must be 64 hex digits",
            )
            hashes[name] = sha
        return hashes

    def optimisation(self, files: Mapping[str, str]) -> dict[str, str]:
        """The level of ONNX Runtime's graph optimisation of some of the files."""
        levels: Any = self._values.get("optimisation", {})
        self._need(
            isinstance(levels, dict)
            and all(name in files and level in OPTIMISATIONS for name, level in levels.items()),
            f"optimisation must map files that are listed to {', '.join(OPTIMISATIONS)}",
        )
        return dict(levels)

    def provenance(self) -> dict[str, Any]:
        value: Any = self._values.get("provenance", {})
        self._need(isinstance(value, dict), "provenance must be an object")
        return dict(value)

    def estimator(self, files: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        """Members and consensus of the estimator."""
        return self._model(self._values.get("estimator"), "estimator", files)

    def classifiers(self, levels: int, files: Mapping[str, str]) -> tuple[tuple[tuple[str, ...], int], ...]:
        """Members and consensus of the classifier of each level."""
        models: Any = self._values.get("classifiers")
        self._need(
            isinstance(models, list) and len(models) == levels,
            f"classifiers must list one model for each of the {levels} sigmas",
        )
        return tuple(self._model(value, f"classifiers[{i}]", files) for i, value in enumerate(models))

    def _model(self, value: Any, where: str, files: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
        self._need(isinstance(value, dict), f"{where} must be an object with members")
        members, consensus = value.get("members"), value.get("consensus", 0)
        self._need(isinstance(members, list) and len(members) > 0, f"{where}.members must name at least one file")
        for name in members:
            self._need(
                isinstance(name, str) and name in files and name.endswith(".onnx"),
                f"{where}.members names {str(name)[:60]!r}, which files does not list as an ONNX file",
            )
        self._need(
            _whole(consensus) and 0 <= consensus <= len(members), f"{where}.consensus must be 0 to {len(members)}"
        )
        return tuple(members), int(consensus)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 <= value <= 1e9


def _whole(value: Any) -> bool:
    return _number(value) and value == int(value)
