"""A bundle on the disk: written aside, checked as a reader would, then moved."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import external_data_helper

from dualsmooth.export.card import CARD, model_card
from dualsmooth.runtime.bundle.reading import MANIFEST, Bundle, manifest_text, read_bundle
from dualsmooth.runtime.engine.trial import safe_level
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.runtime.files import open_to_all_but_umask, sha256_of, sync_folder, write_atomically

EXTERNAL_ABOVE = 1 << 30
"""Weights of more bytes than this go into a second file beside the graph; a graph cannot hold more than 2 GiB."""


def serialise(model: onnx.ModelProto, name: str, external_above: int = EXTERNAL_ABOVE) -> dict[str, bytes]:
    """The files of one graph: NAME, and NAME's stem + `.data` with the weights where they are large.

    Raises `BundleError` from `read_bundle` later, not here.
    """
    if model.ByteSize() <= external_above:
        return {name: model.SerializeToString(deterministic=True)}
    split = onnx.ModelProto()
    split.CopyFrom(model)
    location = f"{Path(name).stem}.data"
    parts: list[bytes] = []
    at = 0
    for tensor in split.graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        data = tensor.raw_data
        if len(data) < 1024:
            continue
        padding = -at % 4096  # where the engine can map the file
        parts += [bytes(padding), data]
        at += padding
        external_data_helper.set_external_data(tensor, location, offset=at, length=len(data))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        at += len(data)
    return {name: split.SerializeToString(deterministic=True), location: b"".join(parts)}


def write_bundle(root: Path, files: Mapping[str, bytes], **manifest: Any) -> Bundle:
    """Write ONNX files and their manifest (arguments of `manifest_text`, without `files`) as the bundle `root`.

    Everything is written into a sibling directory, synced, read back and checked; one rename then makes it appear.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror}; choose another --out") from error
    try:
        for name, data in files.items():
            write_atomically(aside / name, data)
        hashes = {name: sha256_of(aside / name) for name in files}
        optimisation = _survived(aside, hashes, manifest["input_shape"])
        text = manifest_text(files=hashes, optimisation=optimisation, **manifest)
        write_atomically(aside / MANIFEST, text)
        try:
            bundle = read_bundle(aside)
        except BundleError as error:  # nobody knows the folder aside
            raise BundleError(str(error).replace(str(aside), str(root))) from error
        write_atomically(aside / CARD, model_card(bundle, version("dualsmooth")))
        open_to_all_but_umask(aside, 0o777)
        sync_folder(aside)
        try:
            aside.rename(root)
        except OSError as error:
            raise InputError(f"cannot move the bundle to {root}: {error.strerror}; choose another --out") from error
        sync_folder(root.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return dataclasses.replace(bundle, path=root)


def _survived(folder: Path, hashes: Mapping[str, str], shape: tuple[int, int, int]) -> dict[str, str]:
    """The files whose graphs ONNX Runtime's CPU provider survives only with less optimisation, and how much."""
    weights = [digest for name, digest in hashes.items() if name.endswith(".data")]
    graphs = {name: [digest, *weights] for name, digest in hashes.items() if name.endswith(".onnx")}
    levels = {name: safe_level(folder / name, " ".join(d), shape, name=name) for name, d in graphs.items()}
    return {name: level for name, level in levels.items() if level != "all"}
