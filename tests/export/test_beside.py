"""Classifiers of several runs and bundles that vote side by side: against the mean of the logits of their modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dualsmooth.cli import main
from dualsmooth.export import Ensemble, Pictures, export_bundle, export_run
from dualsmooth.export.sources import OnnxFiles, export_source
from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.errors import InputError
from dualsmooth.training import load_run
from dualsmooth.training.run.checkpoint import load_checkpoint, save_checkpoint
from dualsmooth.training.run.record import write_json

Make = Callable[..., Path]
EXPERTS = ("classifier_0.25.pt", "classifier_0.5.pt")
X = np.random.default_rng(0).standard_normal((400, 1, 8, 8), np.float32)


@pytest.fixture
def one(make_run: Make, tmp_path: Path) -> Path:
    return make_run(tmp_path / "one")


@pytest.fixture
def two(make_run: Make, tmp_path: Path) -> Path:
    return make_run(tmp_path / "two", 1, EXPERTS)


def votes(bundle: Bundle, level: int) -> list[int]:
    found: list[int] = OnnxEngine(bundle).votes(bundle.classifiers[level], X, bundle.sigmas[level], 3).tolist()
    return found


def expected(*runs: tuple[Path, int]) -> list[int]:
    with torch.no_grad():
        logits = [load_run(run).classifiers[level](torch.from_numpy(X)) for run, level in runs]  # type: ignore[operator]
    found: list[int] = torch.stack(logits).double().mean(0).argmax(1).tolist()
    return found


def test_each_level_votes_by_the_mean_of_all_logits(one: Path, two: Path, tmp_path: Path) -> None:
    bundle = export_run(one, tmp_path / "b", others=[two])
    for level in (0, 1):
        assert len(bundle.classifiers[level].members) == 2
        assert votes(bundle, level) == expected((one, level), (two, level))
        assert votes(bundle, level) != expected((one, level))
    assert bundle.estimator is not None
    assert bundle.estimator.members == ("estimator.onnx",)
    (story,) = bundle.provenance["beside"]
    assert (story["path"], sorted(story["files"])) == (str(two), sorted(EXPERTS))
    assert story["sessions"] == [{"command": "dualsmooth train", "commit": "0" * 40}]
    assert "metrics" not in bundle.provenance  # they are of the first run alone


def test_levels_that_are_named_and_no_others(one: Path, two: Path, tmp_path: Path) -> None:
    """The run of named experts need not be finished: they must be."""
    record = json.loads((two / "run.json").read_text())
    write_json(two / "run.json", {**record, "finished": False})
    bundle = export_run(one, tmp_path / "b", others=[f"{two}=0.5"])
    assert [len(model.members) for model in bundle.classifiers] == [1, 2]
    write_json(two / "run.json", record)
    assert votes(bundle, 0) == expected((one, 0))
    assert votes(bundle, 1) == expected((one, 1), (two, 1))
    checkpoint = load_checkpoint(two / EXPERTS[1])
    save_checkpoint(two / EXPERTS[1], type(checkpoint)(**{**vars(checkpoint), "epochs": 2}))
    refused(one, f"{two}=0.5", "is not trained to its end")


def test_a_bundle_and_more(one: Path, two: Path, make_run: Make, tmp_path: Path) -> None:
    """A bundle is first or beside; ensembles keep their members; a bundle says what it is made of."""
    three = make_run(tmp_path / "three", 2)
    first, second = export_run(one, tmp_path / "first"), export_run(two, tmp_path / "second", others=[three])
    bundle = export_source(first.path, tmp_path / "b", command="x", others=[second.path])
    assert [len(model.members) for model in bundle.classifiers] == [3, 3]
    assert votes(bundle, 1) == expected((one, 1), (two, 1), (three, 1))
    assert bundle.provenance["source"]["manifest_sha256"] == first.manifest_sha256
    assert bundle.provenance["beside"][0]["manifest_sha256"] == second.manifest_sha256


def test_what_is_int8_stays_bit_for_bit_beside_what_becomes_it(one: Path, two: Path, tmp_path: Path) -> None:
    settings = {"precision": "int8", "pictures": Pictures.random((1, 8, 8)), "force": True}
    first = export_run(one, tmp_path / "first", **settings)
    with pytest.raises(InputError, match=r"only an fp32 bundle can be brought to fp32.*or add --precision int8"):
        export_source(first.path, tmp_path / "b", command="x", others=[two])
    bundle = export_source(first.path, tmp_path / "b", command="x", others=[two], **settings)
    assert bundle.precision == "int8"
    agreement = bundle.provenance["precision"]["agreement"]  # of what was converted: of the others it is not known here
    assert sorted(agreement) == ["classifier_0.25_1.onnx", "classifier_0.5_1.onnx"]
    assert bundle.provenance["source"]["precision"] == first.provenance["precision"]
    alone = [OnnxEngine(b).logits(n, X, 0.25, 3) for b, n in (
        (first, first.classifiers[0].members[0]), (bundle, bundle.classifiers[0].members[0]))]  # fmt: skip
    assert np.array_equal(*alone)


def refused(first: Path, other: str, message: str) -> None:
    out = first.parent / "refused"
    with pytest.raises(InputError, match=message) as caught:
        export_run(first, out, others=[other])
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_what_does_not_fit_is_refused_with_one_line(one: Path, two: Path, tmp_path: Path) -> None:
    record = json.loads((two / "run.json").read_text())
    refused(one, f"{two}=estimator", "one estimator routes; pass RUN or RUN=SIGMA")
    refused(one, f"{two}=1", "has the levels 0.25, 0.5; expected 1 there")
    refused(one, str(tmp_path / "nowhere"), "is not a run directory")
    refused(one, f"{tmp_path / 'nowhere'}=0.5", "is not a run directory")
    for changes, message in (
        ({"finished": False}, "is not finished"),
        ({"classes": ["b", "a", "c"]}, "has other classes, or in another order; expected 3 alike"),
        ({"input_shape": [1, 9, 9]}, r"takes images \[1, 9, 9\]; expected \[1, 8, 8\]"),
        ({"sigmas": [0.25, 1.0]}, "has classifiers at 1; expected levels among 0.25, 0.5"),
    ):
        write_json(two / "run.json", {**record, **changes})
        refused(one, str(two), message)


def test_a_consensus_of_some_takes_no_others(one: Path, two: Path, tmp_path: Path) -> None:
    run = load_run(two)
    decided = export_bundle(
        tmp_path / "decided", estimator=run.estimator, classifiers=[Ensemble(run.classifiers, 1)] * 2,
        sigmas=run.sigmas, classes=run.classes, input_shape=run.input_shape,
    )  # fmt: skip
    refused(one, str(decided.path), "decides by consensus of its first 1")


def test_files_say_by_themselves_who_votes(one: Path, tmp_path: Path) -> None:
    bundle = export_run(one, tmp_path / "b")
    files = OnnxFiles([], [[str(bundle.path / "classifier.onnx")]], (0.25,), None, ("a", "b", "c"))
    with pytest.raises(InputError, match="give --classifier several files"):
        export_source(files, tmp_path / "c", command="x", others=[one])


def test_the_command(one: Path, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(one), "--with", str(two), "--out", str(tmp_path / "b")]) == 0
    assert "classifier_0.5_1.onnx" in capsys.readouterr().out
    assert len(read_bundle(tmp_path / "b").classifiers[0].members) == 2
