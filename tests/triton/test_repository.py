"""Filling a model repository, and the parts of the Triton model that need no Triton."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.reading import BaseModel, manifest_text
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.serving.bls_engine import BlsEngine
from dualsmooth.runtime.serving.repository import fill_repository, model_names, quoted
from dualsmooth.runtime.serving.requests import read_parameters
from dualsmooth.runtime.serving.triton_model import (
    ServerOptions,
    check_tensors,
    open_smoother,
)


def ensemble_bundle(path: Path) -> Path:
    """Three levels: the first two share an ensemble with consensus, the third has a classifier of its own."""
    path.mkdir()
    files = {"e.onnx": toys.steps_onnx(1, [0.3, 0.6])}
    files |= {f"c{i}.onnx": toys.steps_onnx(0, [cut]) for i, cut in enumerate((0.2, 0.22, 0.3, 0.25))}
    for name, data in files.items():
        (path / name).write_bytes(data)
    shared = BaseModel(("c0.onnx", "c1.onnx", "c2.onnx"), consensus=2)
    text = manifest_text(
        sigmas=(0.25, 0.5, 1.0),
        sigma_e=1.0,
        classes=("no", "yes \"ja\" \\ 'はい'\n"),
        input_shape=toys.SHAPE,
        estimator=BaseModel(("e.onnx",)),
        classifiers=(shared, shared, BaseModel(("c3.onnx",))),
        precision="fp32",
        files={name: sha256_of(path / name) for name in files},
        provenance={},
    )
    (path / "manifest.json").write_text(text)
    return path


def test_one_model_for_each_expert(tmp_path: Path, toy_bundle: Path) -> None:
    made = fill_repository(toy_bundle, tmp_path / "r")
    assert made == ["classifier_0", "classifier_1", "dual_smoothing", "dual_smoothing_stream", "variance_estimator"]
    for name, file in (("classifier_1", "classifier_1.onnx"), ("variance_estimator", "estimator.onnx")):
        assert (tmp_path / "r" / name / "1" / "model.onnx").read_bytes() == (toy_bundle / file).read_bytes()
        config = (tmp_path / "r" / name / "config.pbtxt").read_text()
        assert f'name: "{name}"' in config
        assert "dynamic_batching" in config
        assert "response_cache" not in config
    ds.read_bundle(tmp_path / "r" / "dual_smoothing" / "1" / "bundle")


def test_names_of_shared_experts_and_ensembles(tmp_path: Path) -> None:
    bundle = ds.read_bundle(ensemble_bundle(tmp_path / "b"))
    assert model_names(bundle) == {
        "e.onnx": "variance_estimator",
        "c0.onnx": "classifier_0_0",
        "c1.onnx": "classifier_0_1",
        "c2.onnx": "classifier_0_2",
        "c3.onnx": "classifier_2",
    }


def test_command(tmp_path: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "repository"
    assert main(["triton", str(toy_bundle), "--out", str(out)]) == 0
    assert "dual_smoothing" in capsys.readouterr().out
    for arguments, line in (
        ([str(toy_bundle), "--out", str(out)], "exists"),
        ([str(toy_bundle), "--out", str(tmp_path / "x"), "--engine", "gpu"], "engine 'gpu' is unknown"),
        ([str(toy_bundle), "--out", str(tmp_path / "x"), "--provider", "npu"], "provider 'npu' is unknown"),
        ([str(tmp_path), "--out", str(tmp_path / "x")], "manifest.json"),
    ):
        assert main(["triton", *arguments]) == 2
        err = capsys.readouterr().err
        assert line in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]


def options_of(repository: Path, **changes: str) -> ServerOptions:
    """The options in a filled configuration, read back without Triton."""
    manifest = (repository / "dual_smoothing" / "1" / "bundle" / "manifest.json").read_text()
    given = {"engine": "in-process", "provider": "cpu", "threads": "1", "batch_size": "64", "manifest": manifest}
    return ServerOptions.read({"parameters": {k: {"string_value": v} for k, v in {**given, **changes}.items()}})


def test_quoted_text_reads_back() -> None:
    text = "\"\\'\n\t é はい $x"
    back = quoted(text).encode("ascii").decode("unicode_escape").encode("latin-1").decode()
    assert back == text


@pytest.mark.parametrize("name", ["threads", "batch_size", "engine", "max_passes"])
def test_unusable_configurations_are_refused(tmp_path: Path, toy_bundle: Path, name: str) -> None:
    fill_repository(toy_bundle, tmp_path / "r")
    with pytest.raises(ds.InputError, match=f"config parameter {name}"):
        options_of(tmp_path / "r", **{name: "many"})
    with pytest.raises(ds.InputError, match=f"config parameter {name}"):
        options_of(tmp_path / "r", **{name: "9" * 5000})


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"alpha": 1e999}', '{"seed": 1, "seed": 2}'])
def test_unusable_parameters_are_refused(text: str) -> None:
    with pytest.raises(ds.InputError, match="request parameters"):
        read_parameters(text)


def test_options_of_the_provider(tmp_path: Path, toy_bundle: Path) -> None:
    command = ["triton", str(toy_bundle), "--out", str(tmp_path / "r"), "--provider-option", "spinning=off"]
    assert main([*command, "--provider-option", "arena=off"]) == 0
    config = (tmp_path / "r" / "dual_smoothing" / "config.pbtxt").read_text()
    text = config.split('key: "provider_options" value { string_value: "')[1].split('"')[0]
    read = options_of(tmp_path / "r", provider_options=text).provider
    assert (read.spinning, read.arena) == (False, False)
    with pytest.raises(ds.InputError, match="provider cpu has no option 'speed'"):
        options_of(tmp_path / "r", provider_options="speed=high")
    with pytest.raises(ds.InputError, match="provider cpu has no option 'speed'"):
        fill_repository(toy_bundle, tmp_path / "s", provider_options={"speed": "high"})
    assert not (tmp_path / "s").exists()


def test_another_manifest_or_file_is_refused(tmp_path: Path, toy_bundle: Path) -> None:
    repository = tmp_path / "r"
    fill_repository(toy_bundle, repository, placement="bls")
    version = repository / "dual_smoothing" / "1"
    with pytest.raises(ds.BundleError, match="config parameter manifest"):
        open_smoother(version, options_of(repository, manifest="{}"), print)  # type: ignore[arg-type]
    model = repository / "classifier_1" / "1" / "model.onnx"
    model.write_bytes((repository / "classifier_0" / "1" / "model.onnx").read_bytes())
    with pytest.raises(ds.BundleError, match=r"classifier_1.* is not the bundle's classifier_1\.onnx"):
        open_smoother(version, options_of(repository, engine="bls"), print)  # type: ignore[arg-type]
    model = version / "bundle" / "estimator.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(ds.BundleError, match="altered"):
        open_smoother(version, options_of(repository), print)  # type: ignore[arg-type]


def test_ensembles_through_the_server_vote_as_in_process(tmp_path: Path) -> None:
    bundle = ensemble_bundle(tmp_path / "b")
    fill_repository(bundle, tmp_path / "r", placement="bls")
    local = ds.load(bundle, threads=1)

    def call(model: str, inputs: Any) -> np.ndarray[Any, Any]:
        session = onnxruntime.InferenceSession(str(tmp_path / "r" / model / "1" / "model.onnx"))
        return np.asarray(session.run(["logits"], dict(inputs))[0])

    remote = ds.Smoother(local.bundle, BlsEngine(local.bundle, tmp_path / "r", call))
    options: dict[str, Any] = {"seed": 1, "budget": ds.Fixed(300, n0=20)}
    here, there = (s.certify(toys.image(0.5, 0.3), **options) for s in (local, remote))
    assert there.tally.to_dict() == here.tally.to_dict()
    assert there.radius == here.radius > 0


def test_networks_that_mix_rows_are_noticed_at_their_first_votes(tmp_path: Path, toy_bundle: Path) -> None:
    fill_repository(toy_bundle, tmp_path / "r", placement="bls")
    bundle, ready = ds.read_bundle(toy_bundle), False

    def call(model: str, inputs: Any) -> np.ndarray[Any, Any]:
        if not ready:
            raise RuntimeError("still loading")
        return np.asarray((inputs["x"] - inputs["x"].mean(0)).reshape(-1, 2))

    engine, batch = BlsEngine(bundle, tmp_path / "r", call), np.zeros((5, 1, 1, 2), np.float32)
    with pytest.raises(ds.EngineError, match="still loading"):
        engine.votes(bundle.estimator, batch, 0.5, 2)
    ready = True
    for _ in range(2):
        with pytest.raises(ds.BundleError, match="lets one image of a batch change"):
            engine.votes(bundle.estimator, batch, 0.5, 2)


def test_a_failing_base_model_never_votes(tmp_path: Path, toy_bundle: Path) -> None:
    fill_repository(toy_bundle, tmp_path / "r", placement="bls")
    bundle = ds.read_bundle(toy_bundle)
    answers: dict[str, Any] = {"nan": np.full((5, 2), np.nan, np.float32), "short": np.zeros((4, 2), np.float32)}
    for wrong in answers.values():
        engine = BlsEngine(bundle, tmp_path / "r", lambda model, inputs, wrong=wrong: wrong)
        with pytest.raises(ds.EngineError):
            engine.votes(bundle.estimator, np.zeros((5, 1, 1, 2), np.float32), 0.5, 2)

    def down(model: str, inputs: Any) -> Any:
        raise RuntimeError("no such\nmodel")

    with pytest.raises(ds.EngineError, match="variance_estimator failed on the server") as caught:
        BlsEngine(bundle, tmp_path / "r", down).votes(bundle.estimator, np.zeros((5, 1, 1, 2), np.float32), 0.5, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.zeros_like, lambda a: a[:-1], lambda a: a.astype(np.float16), lambda a: 1 / 0])
def test_tensors_that_do_not_survive_are_noticed(wrong: Any) -> None:
    check_tensors(lambda array: array.copy())
    with pytest.raises(ds.EngineError, match="tensors"):
        check_tensors(wrong)


def test_conditional_networks_are_not_batched(tmp_path: Path) -> None:
    """`sigma` is one number for a whole request."""
    import onnx
    from onnx import TensorProto, helper

    bundle = toys.write_bundle(tmp_path / "b", sigmas=(0.25,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[0.2])
    model = onnx.load_from_string((bundle / "classifier_0.onnx").read_bytes())
    model.graph.input.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, []))
    node = helper.make_node("Mul", ["plain", "sigma"], ["logits"])
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.append(node)
    (bundle / "classifier_0.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["classifier_0.onnx"]["sha256"] = sha256_of(bundle / "classifier_0.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    fill_repository(bundle, tmp_path / "r")
    config = (tmp_path / "r" / "classifier" / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in config
    assert 'name: "sigma" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] }' in config


@pytest.mark.parametrize(("level", "number"), [("extended", 1), ("basic", -1), ("disabled", 2)])
def test_triton_optimises_a_graph_no_further_than_the_engine_survives(
    tmp_path: Path, toy_bundle: Path, level: str, number: int
) -> None:
    manifest = json.loads((toy_bundle / "manifest.json").read_text())
    bundle = tmp_path / "b"
    bundle.mkdir()
    for name in manifest["files"]:
        (bundle / name).write_bytes((toy_bundle / name).read_bytes())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"optimisation": {"estimator.onnx": level}}))
    fill_repository(bundle, tmp_path / "r")
    line = f"optimization {{ graph {{ level: {number} }} }}"
    assert line in (tmp_path / "r" / "variance_estimator" / "config.pbtxt").read_text()
    assert "optimization" not in (tmp_path / "r" / "classifier_0" / "config.pbtxt").read_text()
