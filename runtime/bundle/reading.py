"""The bundle: a directory with `manifest.json` and ONNX files, the contract between export and runtime.

The manifest names the candidate noise levels, which ONNX files serve the estimator and each level, and the SHA-256
of every file. Reading a bundle checks all of it, graphs included, and executes nothing; nothing in a bundle is ever
unpickled. docs/bundle.md is the specification.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.fields import Fields
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.shipped import SHIPPED, SHIPPED_NAMES
from dualsmooth.runtime.errors import BundleError, printable
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.graphs.admission import check_file
from dualsmooth.runtime.graphs.foreign_files import foreign, pointer
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATOR, PREDICTION, Stream

FORMAT = "dualsmooth-bundle"
VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 24
SCHEMA = Path(__file__).parents[1] / "data" / "bundle-manifest-1.schema.json"
"""The JSON Schema of the manifest; it accepts what `read_bundle` accepts, as far as a schema can tell."""


@dataclass(frozen=True)
class BaseModel:
    """The network that is voted over: one ONNX file, or an ensemble whose logits are averaged.

    `consensus = K` is part of the definition of an ensemble: where the first K members agree on the arg max, that is
    the vote and the other members are not evaluated. K = 0 averages all members' logits always.

    `sure`: the softmax of the averaged logits that the arg max of a sure vote has at least, where that is asked
    (`Bundle.asked`); 0 where every vote is sure.
    """

    members: tuple[str, ...]
    consensus: int = 0
    sure: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"members": list(self.members), **({"consensus": self.consensus} if self.consensus else {})}


@dataclass(frozen=True)
class Bundle:
    """A checked manifest and the directory it was read from. `estimator` and `sigma_e` are None where there is one
    level and no router, `preprocessing` where only images of `input_shape` are taken. `sure`: of each level above the
    smallest, the softmax from which on a vote is sure; empty where every vote is."""

    path: Path
    sigmas: tuple[float, ...]
    sigma_e: float | None
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    estimator: BaseModel | None
    classifiers: tuple[BaseModel, ...]
    precision: str
    files: Mapping[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""
    optimisation: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    groups: Groups | None = None
    sure: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"<Bundle {printable(self.path.name)}: {self.summary}, {self.precision}>"

    @property
    def summary(self) -> str:
        """Classes, shape of the images and noise levels in a few words."""
        shape, sigmas = "x".join(map(str, self.input_shape)), ", ".join(f"{sigma:g}" for sigma in self.sigmas)
        images = f"images {shape}" if self.preprocessing is None else f"pictures of any size for {shape}"
        many = "sigmas" if len(self.sigmas) > 1 else "sigma"
        return f"{len(self.classes)} classes, {images}, {many} {sigmas}"

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Those of the classifiers, and last the estimator's."""
        return self.sigmas if self.sigma_e is None else (*self.sigmas, self.sigma_e)

    @property
    def trial_level(self) -> float:
        """The noise level that networks are tried at when they are opened."""
        return self.noise_levels[-1]

    @property
    def router(self) -> tuple[BaseModel, float]:
        """The estimator and its noise level. Raises `BundleError` where there is none."""
        if self.estimator is None or self.sigma_e is None:
            raise BundleError(f"{self.path} has one noise level and no estimator; ask for its classifier")
        return self.estimator, self.sigma_e

    def voter(self, stream: Stream) -> tuple[BaseModel, float]:
        """The base model that a stream's votes are of, and its noise level. Raises `BundleError` as `router`."""
        if stream.stage == ESTIMATOR:
            return self.router
        return self.classifiers[stream.level], self.sigmas[stream.level]

    def asked(self, stream: Stream) -> tuple[BaseModel, float]:
        """As `voter`; the base model is asked whether its votes are sure, where some may not be that count."""
        model, sigma = self.voter(stream)
        if not self.sure or stream.stage != CLASSIFIER or stream.level == 0 or stream.purpose == PREDICTION:
            return model, sigma
        return replace(model, sure=self.sure[stream.level - 1]), sigma

    def models(self) -> tuple[BaseModel, ...]:
        """The estimator first, then the classifier of each level; shared classifiers occur once."""
        first = () if self.estimator is None else (self.estimator,)
        return tuple(dict.fromkeys((*first, *self.classifiers)))


def manifest_text(
    *,
    sigmas: tuple[float, ...],
    sigma_e: float | None,
    classes: tuple[str, ...],
    input_shape: tuple[int, int, int],
    estimator: BaseModel | None,
    classifiers: tuple[BaseModel, ...],
    precision: str,
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
    optimisation: Mapping[str, str] | None = None,
    preprocessing: Preprocessing | None = None,
    groups: Groups | None = None,
    sure: tuple[float, ...] = (),
) -> str:
    """The text of `manifest.json`; `files` maps each file name to its SHA-256, `optimisation` some to their level.
    Without a router, `estimator` and `sigma_e` are None."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "input": {"shape": list(input_shape), "range": [0.0, 1.0]},
        **({} if preprocessing is None else {"preprocessing": preprocessing.to_dict()}),
        "classes": list(classes),
        **({"groups": groups.to_dict()} if groups else {}),
        "sigmas": list(sigmas),
        **({} if sigma_e is None else {"sigma_e": sigma_e}),
        **({} if estimator is None else {"estimator": estimator.to_dict()}),
        "classifiers": [model.to_dict() for model in classifiers],
        **({"sure": list(sure)} if sure else {}),
        "precision": precision,
        "files": {name: {"sha256": digest} for name, digest in sorted(files.items())},
        **({"optimisation": dict(optimisation)} if optimisation else {}),
        "provenance": dict(provenance),
    }
    try:
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest cannot be written as JSON ({error}); pass plain, finite values") from error


def bundle_folder(name: str | Path) -> Path:
    """The folder of a bundle: of one that ships where `name` is the text of its name, unless a bundle lies at that
    path. A `Path`, and a text such as `./fashion-mnist`, is never a name."""
    if isinstance(name, str) and name in SHIPPED and not (Path(name) / MANIFEST).exists():
        return SHIPPED[name].folder
    return Path(name)


def read_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle: the manifest, presence and SHA-256 of every file, and every graph against the manifest.

    `path`: its folder, or the name of one that ships (`bundles`). No file is opened that the manifest does not list,
    and nothing is executed. Raises `BundleError` with the first thing that is wrong.

    >>> bundle = read_bundle("fashion-mnist")
    >>> bundle.sigmas, bundle.sigma_e, bundle.input_shape
    ((0.25, 0.5, 1.0), 1.0, (1, 28, 28))
    """
    root = bundle_folder(path)
    if root.is_file() and root.suffix == ".onnx":
        raise BundleError(
            f"bundle {root} is an ONNX file, not a directory; make a bundle of it: `dualsmooth export --classifier "
            f"{root} --sigmas 0.25 --classes 10 --out BUNDLE`"
        )
    if not root.is_dir():
        raise BundleError(
            f"bundle {root} is not a directory; pass the directory that holds {MANIFEST}, or the name of a bundle that "
            f"ships: {SHIPPED_NAMES}"
        )
    raw = _read_manifest(root / MANIFEST)
    bundle = parse_manifest(root, raw)
    for name, digest in bundle.files.items():
        _check_hash(root / name, digest)
    _check_graphs(bundle)
    return bundle


def shipped_manifest(name: str) -> Bundle:
    """What the manifest of the bundle that ships as `name` says; its files are not looked at."""
    folder = SHIPPED[name].folder
    return parse_manifest(folder, _read_manifest(folder / MANIFEST))


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
            *([] if bundle.estimator is None else [(bundle.estimator, len(bundle.sigmas))]),
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
        if what := pointer(raw):
            raise BundleError(f"{root / MANIFEST} is {what}") from error
        why = f": {error}" if type(error) is ValueError else ""
        raise BundleError(
            f"{root / MANIFEST} is not JSON ({type(error).__name__}{why[:80]}); export the bundle again"
        ) from error
    return _parse(root, manifest, hashlib.sha256(raw).hexdigest())


def _parse(root: Path, manifest: Any, digest: str) -> Bundle:
    fields = Fields(root / MANIFEST, manifest)
    fields.require(FORMAT, VERSION)
    sigmas, files, shape, classes = fields.sigmas(), fields.files(), fields.input_shape(), fields.classes()
    routed = fields.routed()
    return Bundle(
        path=root,
        sigmas=sigmas,
        sigma_e=fields.sigma_e() if routed else None,
        classes=classes,
        input_shape=shape,
        estimator=BaseModel(*fields.estimator(files)) if routed else None,
        classifiers=tuple(BaseModel(*model) for model in fields.classifiers(len(sigmas), files)),
        precision=fields.precision(),
        files=files,
        provenance=fields.provenance(),
        manifest_sha256=digest,
        optimisation=fields.optimisation(files),
        preprocessing=fields.preprocessing(shape),
        groups=fields.groups(len(classes)),
        sure=fields.sure(len(sigmas)),
    )
