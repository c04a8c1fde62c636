"""Bundles: the manifest is checked in full, and anything else is a one-line `BundleError`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import SCHEMA

VALID = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
"""The manifest's JSON Schema. Python's `re` lets `$` match before a final newline, other readers do not."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.2, 0.4]
    )


def manifest(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "manifest.json").read_text()))


def test_a_bundle_says_what_it_is(path: Path) -> None:
    bundle = ds.read_bundle(path)
    assert bundle.sigmas == (0.25, 0.5)
    assert bundle.sigma_e == 0.5
    assert bundle.classes == ("class 0", "class 1")
    assert bundle.input_shape == toys.SHAPE
    assert bundle.estimator.members == ("estimator.onnx",)
    assert [m.members for m in bundle.classifiers] == [("classifier_0.onnx",), ("classifier_1.onnx",)]
    assert bundle.manifest_sha256 == toys.sha256_of(path / "manifest.json")
    assert bundle.files["estimator.onnx"] == toys.sha256_of(path / "estimator.onnx")


GREY = {"resize": 9, "resampling": "bilinear", "colour": "grey"}
Change = Callable[[dict[str, Any]], Any]
DAMAGED: dict[str, Change] = {
    "format": lambda m: m.update(format="zip"),
    "version": lambda m: m.update(version=99),
    "version true": lambda m: m.update(version=True),
    "version text": lambda m: m.update(version="1"),
    "no sigmas": lambda m: m.update(sigmas=[]),
    "sigmas descend": lambda m: m.update(sigmas=[0.5, 0.25]),
    "sigmas equal": lambda m: m.update(sigmas=[0.5, 0.5]),
    "sigma zero": lambda m: m.update(sigmas=[0, 0.5]),
    "sigma text": lambda m: m.update(sigmas=["0.25", 0.5]),
    "sigma true": lambda m: m.update(sigmas=[0.25, True]),
    "sigma infinite": lambda m: m.update(sigmas=[0.25, float("inf")]),
    "sigma huge": lambda m: m.update(sigmas=[0.25, 10**400]),
    "sigma_e gone": lambda m: m.pop("sigma_e"),
    "sigma_e NaN": lambda m: m.update(sigma_e=float("nan")),
    "sigma_e huge": lambda m: m.update(sigma_e=10**400),
    "normalised range": lambda m: m["input"].update(range=[-1, 1]),
    "range of booleans": lambda m: m["input"].update(range=[False, True]),
    "range short": lambda m: m["input"].update(range=[0]),
    "range gone": lambda m: m["input"].pop("range"),
    "shape flat": lambda m: m["input"].update(shape=[784]),
    "shape zero": lambda m: m["input"].update(shape=[0, 28, 28]),
    "shape true": lambda m: m["input"].update(shape=[True, 28, 28]),
    "shape enormous": lambda m: m["input"].update(shape=[16384, 16384, 16384]),
    "input gone": lambda m: m.pop("input"),
    "one class": lambda m: m.update(classes=["only"]),
    "classes numbers": lambda m: m.update(classes=[0, 1]),
    "precision": lambda m: m.update(precision="fp4"),
    "precision list": lambda m: m.update(precision=["fp32"]),
    "files gone": lambda m: m.pop("files"),
    "file outside": lambda m: m["files"].update({"../x.onnx": {"sha256": "0" * 64}}),
    "file absolute": lambda m: m["files"].update({"/etc/x.onnx": {"sha256": "0" * 64}}),
    "file newline": lambda m: m["files"].update({"x.onnx\n": {"sha256": "0" * 64}}),
    "file pickled": lambda m: m["files"].update({"x.pt": {"sha256": "0" * 64}}),
    "file missing": lambda m: (
        m["files"].update({"more.onnx": {"sha256": "0" * 64}}),
        m["classifiers"].__setitem__(1, {"members": ["more.onnx"]}),
    ),
    "file name too long": lambda m: m["files"].update({"x" * 201 + ".onnx": {"sha256": "0" * 64}}),
    "file unused": lambda m: m["files"].update({"more.onnx": m["files"]["estimator.onnx"]}),
    "hash short": lambda m: m["files"].update({"estimator.onnx": {"sha256": "0"}}),
    "hash upper case": lambda m: m["files"].update({"estimator.onnx": {"sha256": "A" * 64}}),
    "hash other": lambda m: m["files"].update({"estimator.onnx": {"sha256": "0" * 64}}),
    "no estimator": lambda m: m.pop("estimator"),
    "no router": lambda m: (m.pop("estimator"), m.pop("sigma_e")),
    "no members": lambda m: m["estimator"].update(members=[]),
    "member unknown": lambda m: m["estimator"].update(members=["other.onnx"]),
    "member is data": lambda m: (
        m["files"].update({"w.data": m["files"]["estimator.onnx"]}),
        m["estimator"].update(members=["w.data"]),
    ),
    "member number": lambda m: m["estimator"].update(members=[1]),
    "consensus beyond": lambda m: m["estimator"].update(consensus=2),
    "consensus negative": lambda m: m["estimator"].update(consensus=-1),
    "too few classifiers": lambda m: m["classifiers"].pop(),
    "classifiers object": lambda m: m.update(classifiers={}),
    "provenance": lambda m: m.update(provenance=[]),
    "preprocessing null": lambda m: m.update(preprocessing=None),
    "preprocessing empty": lambda m: m.update(preprocessing={}),
    "no resampling": lambda m: m.update(preprocessing={"resize": 9, "colour": "grey"}),
    "resampling unknown": lambda m: m.update(preprocessing=GREY | {"resampling": "area"}),
    "colour unknown": lambda m: m.update(preprocessing=GREY | {"colour": "bgr"}),
    "colour of other channels": lambda m: m.update(preprocessing=GREY | {"colour": "rgb"}),
    "two channels": lambda m: (m["input"].update(shape=[2, 1, 1]), m.update(preprocessing=GREY)),
    "resize true": lambda m: m.update(preprocessing=GREY | {"resize": True}),
    "resize half": lambda m: m.update(preprocessing=GREY | {"resize": 8.5}),
    "resize text": lambda m: m.update(preprocessing=GREY | {"resize": "9"}),
    "resize infinite": lambda m: m.update(preprocessing=GREY | {"resize": float("inf")}),
    "resize huge": lambda m: m.update(preprocessing=GREY | {"resize": 16385}),
    "resize one in a list": lambda m: m.update(preprocessing=GREY | {"resize": [9]}),
    "resize three": lambda m: m.update(preprocessing=GREY | {"resize": [9, 9, 9]}),
    "resize below the input": lambda m: m.update(preprocessing=GREY | {"resize": 1}),
    "resize narrower than the input": lambda m: m.update(preprocessing=GREY | {"resize": [9, 1]}),
    "optimisation list": lambda m: m.update(optimisation=["estimator.onnx"]),
    "optimisation unknown": lambda m: m.update(optimisation={"estimator.onnx": "all"}),
    "optimisation of another file": lambda m: m.update(optimisation={"other.onnx": "basic"}),
}


BEYOND_SCHEMA = {
    "sigmas descend", "sigmas equal", "shape enormous", "file missing", "file unused", "file newline", "hash other",
    "member unknown", "consensus beyond", "too few classifiers", "sigma infinite", "sigma_e NaN",
    "optimisation of another file", "colour of other channels", "two channels", "resize infinite",
    "resize below the input", "resize narrower than the input",
}  # fmt: skip
"""What no JSON Schema can say (docs/bundle.md lists it), or what is no JSON."""

HARMLESS: dict[str, Change] = {
    "unchanged": lambda m: None,
    "whole numbers": lambda m: m.update(sigmas=[1, 2], sigma_e=2),
    "version 1.0": lambda m: m.update(version=1.0),
    "range of integers": lambda m: m["input"].update(range=[0, 1]),
    "shape 1.0": lambda m: m["input"].update(shape=[1.0, 1, 2]),
    "no provenance": lambda m: m.pop("provenance"),
    "any provenance": lambda m: m.update(provenance={"a": [1, None, {"b": True}]}),
    "unknown keys": lambda m: (m.update(later={"x": 1}), m["input"].update(colour="grey"), m["estimator"].update(x=1)),
    "preprocessing": lambda m: m.update(preprocessing=GREY),
    "preprocessing to a size": lambda m: m.update(preprocessing=GREY | {"resize": [1, 2], "resampling": "nearest"}),
    "preprocessing as floats": lambda m: m.update(preprocessing=GREY | {"resize": 2.0, "later": 1}),
    "consensus 0": lambda m: m["estimator"].update(consensus=0),
    "consensus 1": lambda m: m["estimator"].update(consensus=1),
    "a member twice": lambda m: m["estimator"].update(members=["estimator.onnx"] * 2, consensus=2),
    "class names of any text": lambda m: m.update(classes=["", "\u00e9\n"]),
    "every precision": lambda m: m.update(precision="bf16"),
    "sigma_e below": lambda m: m.update(sigma_e=0.1),
    "optimisation": lambda m: m.update(optimisation={"estimator.onnx": "disabled"}),
    "sure votes": lambda m: m.update(sure=[0.7] * (len(m["sigmas"]) - 1)),
}


def test_one_level_needs_no_router_and_never_half_of_one(tmp_path: Path) -> None:
    alone = toys.write_bundle(tmp_path / "b", sigmas=(0.5,), classifier_cuts=[0.2])
    data = manifest(alone)
    VALID.validate(data)
    bundle = ds.read_bundle(alone)
    assert (bundle.sigma_e, bundle.estimator, bundle.noise_levels) == (None, None, (0.5,))
    assert bundle.models() == bundle.classifiers
    with pytest.raises(ds.BundleError, match="has one noise level and no estimator"):
        bundle.router  # noqa: B018
    for half in ({"sigma_e": 0.5}, {"estimator": data["classifiers"][0]}, {"sigma_e": None}):
        (alone / "manifest.json").write_text(json.dumps(data | half))
        assert not VALID.is_valid(data | half)
        with pytest.raises(ds.BundleError, match="must be there: they go together"):
            ds.read_bundle(alone)


@pytest.mark.parametrize("change", HARMLESS)
def test_manifests_that_are_fine_are_accepted_by_reader_and_schema(path: Path, change: str) -> None:
    data = manifest(path)
    HARMLESS[change](data)
    (path / "manifest.json").write_text(json.dumps(data))
    ds.read_bundle(path)
    VALID.validate(data)


@pytest.mark.parametrize("change", sorted(set(DAMAGED) - BEYOND_SCHEMA))
def test_the_schema_refuses_what_the_reader_refuses(path: Path, change: str) -> None:
    data = manifest(path)
    DAMAGED[change](data)
    assert not VALID.is_valid(data)


def test_the_schema_accepts_the_bundle_that_ships() -> None:
    from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE

    VALID.validate(manifest(SHIPPED_BUNDLE))
    jsonschema.Draft202012Validator.check_schema(VALID.schema)


@pytest.mark.parametrize("change", DAMAGED)
def test_damaged_manifests_are_refused(path: Path, change: str) -> None:
    data = manifest(path)
    DAMAGED[change](data)
    (path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ds.BundleError) as caught:
        ds.read_bundle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\0", '{"a":' * 5000, '{"version": ' + "9" * 5000]
)
def test_things_that_are_no_manifest_are_refused(path: Path, text: str) -> None:
    (path / "manifest.json").write_text(text)
    with pytest.raises(ds.BundleError):
        ds.read_bundle(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ds.BundleError):
        ds.read_bundle(path)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    data = bytearray((path / "classifier_1.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "classifier_1.onnx").write_bytes(data)
    with pytest.raises(ds.BundleError, match="altered or damaged"):
        ds.read_bundle(path)


def test_links_out_of_the_bundle_are_refused(path: Path, tmp_path: Path) -> None:
    (path / "estimator.onnx").rename(tmp_path / "elsewhere.onnx")
    (path / "estimator.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ds.BundleError, match="regular file"):
        ds.read_bundle(path)


def test_missing_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ds.BundleError, match="not a directory"):
        ds.read_bundle(tmp_path / "nowhere")
    with pytest.raises(ds.BundleError, match="cannot read"):
        ds.read_bundle(tmp_path)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
VALUES = SCALARS | st.just(10**400) | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_manifests_only_ever_raise_bundle_errors(path: Path, data: st.DataObject) -> None:
    original = (path / "manifest.json").read_text()
    mutated = json.loads(original)
    *inside, last = data.draw(st.sampled_from(places(mutated)[1:]))
    parent = mutated
    for key in inside:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[last] = data.draw(VALUES)
    else:
        del parent[last]
    (path / "manifest.json").write_text(json.dumps(mutated))
    try:
        with contextlib.suppress(ds.BundleError):
            ds.read_bundle(path)
            assert VALID.is_valid(json.loads(json.dumps(mutated)))  # the reader accepts nothing that the schema refuses
    finally:
        (path / "manifest.json").write_text(original)
