from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import dualsmooth.export.bundle as bundles
from dualsmooth.export import export_bundle
from dualsmooth.export.bundle import write_bundle
from dualsmooth.runtime.bundle import BaseModel, read_bundle
from dualsmooth.runtime.errors import BundleError, InputError

Make = Callable[..., nn.Module]
COMMON: dict[str, Any] = {
    "sigmas": (0.25, 0.5), "sigma_e": 1.0, "classes": ("a", "b", "c"), "input_shape": (1, 6, 6),
}  # fmt: skip


def test_a_shared_classifier_becomes_one_file(probe: Make, tmp_path: Path) -> None:
    shared = probe(3)
    out = tmp_path / "new" / "bundle"
    made = export_bundle(out, estimator=probe(2), classifiers=[shared, shared], provenance={"why": "test"}, **COMMON)
    bundle = read_bundle(out)
    assert made == bundle
    assert sorted(p.name for p in out.iterdir()) == ["classifier.onnx", "estimator.onnx", "manifest.json"]
    assert bundle.classifiers == (BaseModel(("classifier.onnx",)),) * 2
    assert (bundle.sigmas, bundle.sigma_e, bundle.classes) == ((0.25, 0.5), 1.0, ("a", "b", "c"))
    assert bundle.provenance["why"] == "test"
    assert max(bundle.provenance["parity"].values()) < 1e-4
    assert [p.name for p in out.parent.iterdir()] == ["bundle"]


def test_experts_become_one_file_each(probe: Make, tmp_path: Path) -> None:
    bundle = export_bundle(tmp_path, estimator=probe(2), classifiers=[probe(3), probe(3, seed=1)], **COMMON)
    assert sorted(bundle.files) == ["classifier_0.25.onnx", "classifier_0.5.onnx", "estimator.onnx"]
    assert [m.members[0] for m in bundle.classifiers] == ["classifier_0.25.onnx", "classifier_0.5.onnx"]


def test_a_taken_place_is_refused_and_left_alone(probe: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="is not an empty directory"):
            export_bundle(place, estimator=probe(2), classifiers=[probe(3)] * 2, **COMMON)
    with pytest.raises(InputError, match="cannot write"):
        write_bundle(tmp_path / "mine.txt" / "bundle", {})
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_networks_of_the_wrong_width_leave_nothing_behind(probe: Make, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected finite values of shape"):
        export_bundle(tmp_path / "bundle", estimator=probe(3), classifiers=[probe(3)] * 2, **COMMON)
    assert list(tmp_path.iterdir()) == []


def test_one_classifier_per_level(probe: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 classifiers for 2 sigmas"):
        export_bundle(tmp_path / "bundle", estimator=probe(2), classifiers=[probe(3)], **COMMON)


def _write(out: Path, **changes: Any) -> None:
    model = BaseModel(("a.onnx",))
    settings = {**COMMON, "estimator": model, "classifiers": (model, model), "precision": "fp32", "provenance": {}}
    write_bundle(out, {"a.onnx": b"graph"}, **{**settings, **changes})


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="sigma_e must be"):
        _write(tmp_path / "bundle", sigma_e=-1.0)
    real, calls = bundles.write_atomically, []

    def full_disk(path: Path, data: bytes | str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise InputError("cannot write: no space left")
        real(path, data)

    monkeypatch.setattr(bundles, "write_atomically", full_disk)
    with pytest.raises(InputError, match="no space"):
        _write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_can_be_read_by_others(tmp_path: Path) -> None:
    _write(tmp_path / "bundle")
    assert (tmp_path / "bundle").stat().st_mode & 0o700 == 0o700
    assert (tmp_path / "bundle").stat().st_mode & 0o777 != 0o700
