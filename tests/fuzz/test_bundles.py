"""Whole bundle folders: refused in one line, or what they state, and then certifying or failing cleanly."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import changed, damaged
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.bundle.describing import describe, sentences
from dualsmooth.runtime.bundle.reading import MANIFEST

NAMES = ("estimator.onnx", "classifier_0.onnx", "classifier_1.onnx", "classifier_2.onnx")


class Real:
    manifest: dict[str, Any]
    files: dict[str, bytes]


def contents() -> list[bytes]:
    return list(Real.files.values())


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> None:
    path = toys.write_bundle(
        folder / "bundle",
        sigmas=(0.25, 0.5, 1.0),
        sigma_e=0.8,
        estimator_cuts=[0.3, 0.6],
        classifier_cuts=[0.3, 0.4, 0.2],
    )
    Real.files = {name: (path / name).read_bytes() for name in NAMES}
    Real.manifest = json.loads((path / MANIFEST).read_text())


@st.composite
def folders(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes | None], bool]:
    """A manifest, contents of files that differ (None: missing), and whether their true hashes are stated."""
    manifest, files = Real.manifest, dict[str, bytes | None]()
    if draw(st.integers(0, 2)) == 0:
        manifest = draw(changed(lambda: [Real.manifest], most=1))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)):
        kind = draw(st.integers(0, 9))
        swapped = Real.files[NAMES[draw(st.integers(0, 3))]]
        files[name] = None if kind == 0 else swapped if kind <= 3 else draw(damaged(contents, most=3))
    return json.dumps(manifest).encode(), files, draw(st.booleans())


def build(case: tuple[bytes, dict[str, bytes | None], bool], path: Path) -> None:
    raw, files, honest = case
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    manifest = json.loads(raw)
    for name, data in {**Real.files, **files}.items():
        if data is None:
            continue
        (path / name).write_bytes(data)
        listed = manifest.get("files") if isinstance(manifest, dict) else None
        entry = listed.get(name) if isinstance(listed, dict) else None
        if honest and isinstance(entry, dict):
            entry["sha256"] = hashlib.sha256(data).hexdigest()
    (path / MANIFEST).write_text(json.dumps(manifest))


@fuzz("bundle folders", case=folders())
def test_accepted_bundles_hold_the_stated_files_and_certify_or_fail_cleanly(case: Any, folder: Path) -> None:
    path = folder / "case"
    build(case, path)
    bundle = attempt(ds.read_bundle, path)
    for name, digest in bundle.files.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
    assert sentences(json.loads(json.dumps(describe(bundle))))
    if len(bundle.sigmas) > 6 or len(bundle.classes) > 1000:
        return
    smoother = attempt(ds.load, path, threads=1, batch_size=64)
    image = np.full(bundle.input_shape, 0.5, np.float32)
    made = attempt(smoother.certify, image, budget=ds.Fixed(60, n0=10), seed=1)
    smoother.verify(ds.Certificate.from_json(made.to_json()))
