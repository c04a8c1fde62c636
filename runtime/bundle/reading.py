"""The bundle: a directory with `manifest.json` and ONNX files, the contract between export and runtime.

The manifest names the candidate noise levels, which ONNX files serve the estimator and each level, and the SHA-256
of every file. Reading a bundle checks all of it, graphs included, and executes nothing; nothing in a bundle is ever
unpickled. docs/bundle.md is the specification.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import BundleError
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.graphs.admission import check_file
from dualsmooth.runtime.graphs.foreign_files import LFS, LFS_WHAT, foreign
from dualsmooth.runtime.graphs.precision import PRECISIONS

FORMAT = "dualsmooth-bundle"
VERSION = 1
OPTIMISATIONS = ("extended", "basic", "disabled")
"""Levels of ONNX Runtime's graph optimisation below all of it, for files of which it crashes there."""
MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 24
SCHEMA = Path(__file__).parents[1] / "data" / "bundle-manifest-1.schema.json"
"""The JSON Schema of the manifest; it accepts what `read_bundle` accepts, as far as a schema can tell."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.(onnx|data)")


@dataclass(frozen=True)
class BaseModel:
    """The network that is voted over: one ONNX file, or an ensemble whose logits are averaged.

    `consensus = K` is part of the definition of an ensemble: where the first K members agree on the arg max, that is
    the vote and the other members are not evaluated. K = 0 averages all members' logits always.
    """

    members: tuple[str, ...]
    consensus: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"members": list(self.members), **({"consensus": self.consensus} if self.consensus else {})}


@dataclass(frozen=True)
class Bundle:
    """A checked manifest and the directory it was read from."""

    path: Path
    sigmas: tuple[float, ...]
    sigma_e: float
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    estimator: BaseModel
    classifiers: tuple[BaseModel, ...]
    precision: str
    files: Mapping[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""
    optimisation: Mapping[str, str] = field(default_factory=dict)

    def models(self) -> tuple[BaseModel, ...]:
        """The estimator first, then the classifier of each level; shared classifiers occur once."""
        return tuple(dict.fromkeys((self.estimator, *self.classifiers)))


def manifest_text(
    *,
    sigmas: tuple[float, ...],
    sigma_e: float,
    classes: tuple[str, ...],
    input_shape: tuple[int, int, int],
    estimator: BaseModel,
    classifiers: tuple[BaseModel, ...],
    precision: str,
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
    optimisation: Mapping[str, str] | None = None,
) -> str:
    """The text of `manifest.json`; `files` maps each file name to its SHA-256, `optimisation` some to their level."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "input": {"shape": list(input_shape), "range": [0.0, 1.0]},
        "classes": list(classes),
        "sigmas": list(sigmas),
        "sigma_e": sigma_e,
        "estimator": estimator.to_dict(),
        "classifiers": [model.to_dict() for model in classifiers],
        "precision": precision,
        "files": {name: {"sha256": digest} for name, digest in sorted(files.items())},
        **({"optimisation": dict(optimisation)} if optimisation else {}),
        "provenance": dict(provenance),
    }
    try:
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest cannot be written as JSON ({error}); pass plain, finite values") from error


def read_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle: the manifest, presence and SHA-256 of every file, and every graph against the manifest.

    No file is opened that the manifest does not list, and nothing is executed. Raises `BundleError` with the first
    thing that is wrong.
    """
    root = Path(path)
    if not root.is_dir():
        raise BundleError(f"bundle {root} is not a directory; pass the directory that holds {MANIFEST}")
    raw = _read_manifest(root / MANIFEST)
    bundle = parse_manifest(root, raw)
    for name, digest in bundle.files.items():
        _check_hash(root / name, digest)
    _check_graphs(bundle)
    return bundle


def _read_manifest(path: Path) -> bytes:
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise BundleError(f"{path} is not a regular file; export the bundle again")
        with open(path, "rb") as file:
            raw = file.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error.strerror}); make a bundle with `dualsmooth export`") from error
    if len(raw) > MAX_MANIFEST:
        raise BundleError(f"{path} has more than {MAX_MANIFEST} bytes; export the bundle again")
    return raw


def _check_hash(file: Path, digest: str) -> None:
    if file.is_symlink() or not file.is_file():
        raise BundleError(f"{file} is not a regular file inside the bundle; export the bundle again")
    try:
        actual = sha256_of(file)
    except OSError as error:
        raise BundleError(f"cannot read {file} ({error.strerror}); export the bundle again") from error
    if actual != digest:
        if what := foreign(file):
            raise BundleError(f"{what} (altered or damaged: its SHA-256 is not the manifest's)")
        raise BundleError(
            f"{file} has SHA-256 {actual[:16]}… but the manifest says {digest[:16]}…: the file was altered or damaged; "
            "export the bundle again"
        )


def _check_graphs(bundle: Bundle) -> None:
    used = {name for model in bundle.models() for name in model.members}
    external: set[str] = set()
    for name in sorted(used):
        for model, width in (
            (bundle.estimator, len(bundle.sigmas)),
            *((m, len(bundle.classes)) for m in bundle.classifiers),
        ):
            if name in model.members:
                external |= check_file(bundle.path / name, bundle.files, bundle.input_shape, width)
    idle = sorted(set(bundle.files) - used - external)
    if idle:
        raise BundleError(
            f"{bundle.path / MANIFEST}: files lists {idle[:3]}, which no model uses; export the bundle again"
        )


def parse_manifest(root: Path, raw: bytes) -> Bundle:
    """The bundle that a manifest's bytes describe, without a look at its files. Raises `BundleError`."""
    try:
        manifest = strict_json.loads(raw)
    except ValueError as error:
        if raw.startswith(LFS):
            raise BundleError(f"{root / MANIFEST} is {LFS_WHAT}") from error
        why = f": {error}" if type(error) is ValueError else ""
        raise BundleError(
            f"{root / MANIFEST} is not JSON ({type(error).__name__}{why[:80]}); export the bundle again"
        ) from error
    return _parse(root, manifest, hashlib.sha256(raw).hexdigest())


def _parse(root: Path, manifest: Any, digest: str) -> Bundle:
    def need(ok: bool, what: str) -> None:
        if not ok:
            raise BundleError(f"{root / 'manifest.json'}: {what}; export the bundle again")

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 <= value <= 1e9

    def whole(value: Any) -> bool:
        return number(value) and value == int(value)

    need(isinstance(manifest, dict), "the top level must be an object")
    need(manifest.get("format") == FORMAT, f"format must be {FORMAT!r}, found {str(manifest.get('format'))[:40]!r}")
    need(
        whole(manifest.get("version")) and manifest["version"] == VERSION,
        f"version must be {VERSION}, found {str(manifest.get('version'))[:40]}",
    )
    sigmas = manifest.get("sigmas")
    need(
        isinstance(sigmas, list) and 1 <= len(sigmas) <= 64 and all(map(number, sigmas)),
        "sigmas must be 1 to 64 numbers",
    )
    need(
        sigmas[0] > 0 and all(a < b for a, b in pairwise(sigmas)),
        "sigmas must be positive and ascending",
    )
    need(number(manifest.get("sigma_e")) and manifest["sigma_e"] > 0, "sigma_e must be a positive number")
    source: Any = manifest.get("input")
    shape: Any = source.get("shape") if isinstance(source, dict) else None
    need(
        isinstance(shape, list) and len(shape) == 3 and all(whole(n) and 1 <= n <= 16384 for n in shape),
        "input.shape must be [C, H, W] with sizes from 1 to 16384",
    )
    need(math.prod(shape) <= 1 << 26, "input.shape has more than 2^26 values")
    limits = source.get("range")
    need(
        isinstance(limits, list) and all(map(number, limits)) and limits == [0, 1],
        "input.range must be [0, 1]: normalisation belongs inside the graph",
    )
    classes = manifest.get("classes")
    need(
        isinstance(classes, list) and 2 <= len(classes) <= 100_000 and all(isinstance(c, str) for c in classes),
        "classes must be at least 2 names",
    )
    need(manifest.get("precision") in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}")
    files = manifest.get("files")
    need(isinstance(files, dict) and 1 <= len(files) <= 4096, "files must map 1 to 4096 files to their sha256")
    hashes: dict[str, str] = {}
    for name, entry in files.items():
        need(
            _FILE_NAME.fullmatch(name) is not None,
            f"{name[:60]!r} is not a plain file name that ends in .onnx or .data",
        )
        sha: Any = entry.get("sha256") if isinstance(entry, dict) else None
        need(
            isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) is not None,
            f"files.{name}.sha256 must be 64 hex digits",
        )
        hashes[name] = sha

    def model(value: Any, where: str) -> BaseModel:
        need(isinstance(value, dict), f"{where} must be an object with members")
        members, consensus = value.get("members"), value.get("consensus", 0)
        need(isinstance(members, list) and len(members) > 0, f"{where}.members must name at least one file")
        for name in members:
            need(
                isinstance(name, str) and name in hashes and name.endswith(".onnx"),
                f"{where}.members names {str(name)[:60]!r}, which files does not list as an ONNX file",
            )
        need(whole(consensus) and 0 <= consensus <= len(members), f"{where}.consensus must be 0 to {len(members)}")
        return BaseModel(tuple(members), int(consensus))

    levels = manifest.get("classifiers")
    need(
        isinstance(levels, list) and len(levels) == len(sigmas),
        f"classifiers must list one model for each of the {len(sigmas)} sigmas",
    )
    optimisation = manifest.get("optimisation", {})
    need(
        isinstance(optimisation, dict)
        and all(name in hashes and level in OPTIMISATIONS for name, level in optimisation.items()),
        f"optimisation must map files that are listed to {', '.join(OPTIMISATIONS)}",
    )
    provenance = manifest.get("provenance", {})
    need(isinstance(provenance, dict), "provenance must be an object")
    return Bundle(
        path=root,
        sigmas=tuple(float(s) for s in sigmas),
        sigma_e=float(manifest["sigma_e"]),
        classes=tuple(classes),
        input_shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        estimator=model(manifest.get("estimator"), "estimator"),
        classifiers=tuple(model(value, f"classifiers[{i}]") for i, value in enumerate(levels)),
        precision=manifest["precision"],
        files=hashes,
        provenance=provenance,
        manifest_sha256=digest,
        optimisation=optimisation,
    )
