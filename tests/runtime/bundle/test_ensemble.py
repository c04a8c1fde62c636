"""Ensembles are base models of their own: mean of logits, and K-consensus as part of the definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine

CUTS = (0.2, 0.3, 0.7)


def ensemble_bundle(path: Path, consensus: int) -> ds.Bundle:
    """Level 0 is an ensemble of three half-spaces; the logits t - cut average to t - mean(cuts)."""
    toys.write_bundle(path, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.4, 0.4])
    manifest = json.loads((path / "manifest.json").read_text())
    names = []
    for i, cut in enumerate(CUTS):
        name = f"member_{i}.onnx"
        (path / name).write_bytes(toys.steps_onnx(0, [cut]))
        manifest["files"][name] = {"sha256": toys.sha256_of(path / name)}
        names.append(name)
    manifest["classifiers"][0] = {"members": names, "consensus": consensus}
    del manifest["files"]["classifier_0.onnx"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    return ds.read_bundle(path)


@pytest.mark.parametrize(("consensus", "expected"), [(0, [0, 0, 1, 1]), (2, [0, 0, 1, 1]), (1, [0, 1, 1, 1])])
def test_votes_follow_the_definition(tmp_path, consensus, expected) -> None:
    # mean cut 0.4; with K = 2 members 0 and 1 agree outside of [0.2, 0.3); with K = 1 member 0 decides alone
    engine = OnnxEngine(ensemble_bundle(tmp_path / "b", consensus))
    batch = np.array([[[[t, 0]]] for t in (0.1, 0.25, 0.45, 0.9)], np.float32)
    model = BaseModel(tuple(f"member_{i}.onnx" for i in range(3)), consensus)
    assert engine.votes(model, batch, 0.25, 2).tolist() == expected


def test_consensus_skips_members_that_cannot_matter(tmp_path, monkeypatch) -> None:
    engine = OnnxEngine(ensemble_bundle(tmp_path / "b", 2))
    seen: dict[str, int] = {}
    plain = engine.logits

    def counting(name, batch, sigma, width):
        seen[name] = seen.get(name, 0) + len(batch)
        return plain(name, batch, sigma, width)

    monkeypatch.setattr(engine, "logits", counting)
    batch = np.array([[[[t, 0]]] for t in (0.1, 0.25, 0.45, 0.9)], np.float32)
    engine.votes(BaseModel(("member_0.onnx", "member_1.onnx", "member_2.onnx"), 2), batch, 0.25, 2)
    assert seen == {"member_0.onnx": 4, "member_1.onnx": 4, "member_2.onnx": 1}


def test_the_definition_decides_the_certificate(tmp_path) -> None:
    """The radius is that of the averaged half-space (cut 0.4), not of a member."""
    ensemble_bundle(tmp_path / "b", 0)
    cert = ds.load(tmp_path / "b").certify(toys.image(0.6, 0.0), rule="single:0.25", budget=ds.Fixed(20_000), seed=1)
    assert 0.18 < cert.radius < 0.2
