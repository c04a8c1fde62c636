"""Manifests: refused in one line, or accepted and exactly what they say, by the JSON Schema as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import GARBAGE, changed_text

from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.reading import MANIFEST, SCHEMA, manifest_text, parse_manifest


class Real:
    manifests: list[dict[str, Any]]
    schema: Any


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> None:
    path = toys.write_bundle(
        folder / "bundle",
        sigmas=(0.25, 0.5, 1.0),
        sigma_e=0.8,
        estimator_cuts=[0.3, 0.6],
        classifier_cuts=[0.3, 0.4, 0.2],
        sure=(0.6, 0.9),
    )
    alone = toys.write_bundle(
        folder / "one", sigmas=(0.5,), classifier_cuts=[0.3], preprocessing=Preprocessing(toys.SHAPE, 9)
    )
    Real.manifests = [json.loads((root / MANIFEST).read_text()) for root in (path, alone)]
    Real.schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@fuzz("manifests", share=0.9, text=changed_text(lambda: Real.manifests, indent=2))
def test_accepted_manifests_are_what_they_say(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    bundle = attempt(parse_manifest, Path("b"), raw)
    stated = json.loads(raw)
    Real.schema.validate(stated)
    assert list(bundle.sigmas) == stated["sigmas"]
    assert all(np.isfinite(s) for s in bundle.noise_levels)
    assert bundle.sigma_e == stated.get("sigma_e")
    assert bundle.files == {name: entry["sha256"] for name, entry in stated["files"].items()}
    assert {name for model in bundle.models() for name in model.members} <= set(bundle.files)
    fields = {k: v for k, v in vars(bundle).items() if k not in ("path", "manifest_sha256")}
    again = parse_manifest(Path("b"), manifest_text(**fields).encode("utf-8", "surrogatepass"))
    assert {k: v for k, v in vars(again).items() if k not in ("path", "manifest_sha256")} == fields


@fuzz("manifests", share=0.1, text=GARBAGE)
def test_garbage_is_no_manifest(text: str) -> None:
    attempt(parse_manifest, Path("b"), text.encode("utf-8", "surrogatepass"))
    raise AssertionError("accepted")
