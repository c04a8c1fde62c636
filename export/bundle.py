"""Networks to a bundle: traced, compared with PyTorch, written aside, checked, and only then moved into place."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from dualsmooth.export.graph import takes_sigma, to_onnx
from dualsmooth.export.parity import check_parity
from dualsmooth.runtime.bundle import BaseModel, Bundle, manifest_text, read_bundle
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of, write_atomically


def export_bundle(
    out: str | Path,
    *,
    estimator: nn.Module,
    classifiers: Sequence[nn.Module],
    sigmas: Sequence[float],
    sigma_e: float,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Export `estimator` ([N,C,H,W] to [N,len(sigmas)]) and the classifier of each sigma ([N,len(classes)]) to `out`.

    The modules take noisy images in [0, 1] units, unnormalised: normalisation belongs inside. A module that serves
    several sigmas is passed several times and becomes one file. `out` must not exist, or be empty; it appears complete
    or not at all. `provenance` is recorded in the manifest, with the versions used here and the parity measured.
    Raises `InputError` for arguments that do not fit each other, `BundleError` where a network cannot be exported.
    """
    root = Path(out)
    _check(root, classifiers, sigmas)
    levels = tuple(float(s) for s in sigmas)
    names: dict[int, str] = {}
    for module, sigma in zip(classifiers, levels, strict=True):
        names.setdefault(id(module), f"classifier_{sigma:g}.onnx")
    if len(names) == 1:
        names = dict.fromkeys(names, "classifier.onnx")
    modules: dict[str, tuple[nn.Module, int, tuple[float, ...]]] = {
        "estimator.onnx": (estimator, len(levels), (float(sigma_e),))
    }
    for module in classifiers:
        served = tuple(s for m, s in zip(classifiers, levels, strict=True) if m is module)
        modules[names[id(module)]] = (module, len(classes), served if takes_sigma(module) else served[-1:])

    graphs: dict[str, bytes] = {}
    parity: dict[str, float] = {}
    for name, (module, outputs, served) in modules.items():
        graphs[name] = to_onnx(module, input_shape)
        parity[name] = float(f"{check_parity(module, graphs[name], input_shape, outputs, served, name):.3g}")
    details = {
        **(provenance or {}),
        "parity": parity,
        "exported_with": {"torch": torch.__version__, "onnx": onnx.__version__},
    }
    return write_bundle(
        root,
        graphs,
        sigmas=levels,
        sigma_e=float(sigma_e),
        classes=tuple(classes),
        input_shape=input_shape,
        estimator=BaseModel(("estimator.onnx",)),
        classifiers=tuple(BaseModel((names[id(module)],)) for module in classifiers),
        precision="fp32",
        provenance=details,
    )


def write_bundle(root: Path, graphs: Mapping[str, bytes], **manifest: Any) -> Bundle:
    """Write ONNX files and their manifest (arguments of `manifest_text`, without `files`) as the bundle `root`.

    Everything is written into a sibling directory, synced, read back and checked; one rename then makes it appear.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror}; choose another --out") from error
    try:
        for name, data in graphs.items():
            write_atomically(aside / name, data)
        files = {name: sha256_of(aside / name) for name in graphs}
        write_atomically(aside / "manifest.json", manifest_text(files=files, **manifest))
        bundle = read_bundle(aside)
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o777 & ~umask)
        _sync(aside)
        try:
            aside.rename(root)
        except OSError as error:
            raise InputError(f"cannot move the bundle to {root}: {error.strerror}; choose another --out") from error
        _sync(root.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return dataclasses.replace(bundle, path=root)


def _check(root: Path, classifiers: Sequence[nn.Module], sigmas: Sequence[float]) -> None:
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty directory; choose another --out, or remove it first")
    if len(classifiers) != len(sigmas) or not classifiers:
        raise InputError(
            f"{len(classifiers)} classifiers for {len(sigmas)} sigmas; expected one each (the same module may repeat)"
        )


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
