from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import dualsmooth.export.bundle as bundles
from dualsmooth.export import Ensemble, export_bundle, writing
from dualsmooth.export.sources import export_source
from dualsmooth.export.writing import serialise, write_bundle
from dualsmooth.runtime.bundle.reading import BaseModel, read_bundle
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
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
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "classifier.onnx", "estimator.onnx", "manifest.json"]
    assert bundle.classifiers == (BaseModel(("classifier.onnx",)),) * 2
    assert (bundle.sigmas, bundle.sigma_e, bundle.classes) == ((0.25, 0.5), 1.0, ("a", "b", "c"))
    assert bundle.provenance["why"] == "test"
    assert max(bundle.provenance["parity"].values()) < 1e-4
    assert [p.name for p in out.parent.iterdir()] == ["bundle"]


def test_experts_become_one_file_each(probe: Make, tmp_path: Path) -> None:
    bundle = export_bundle(tmp_path, estimator=probe(2), classifiers=[probe(3), probe(3, seed=1)], **COMMON)
    assert sorted(bundle.files) == ["classifier_0.25.onnx", "classifier_0.5.onnx", "estimator.onnx"]
    assert [m.members[0] for m in bundle.classifiers] == ["classifier_0.25.onnx", "classifier_0.5.onnx"]


def test_what_makes_a_vote_sure_is_stated_and_checked(probe: Make, tmp_path: Path) -> None:
    networks: dict[str, Any] = {"estimator": probe(2), "classifiers": [probe(3)] * 2}
    bundle = export_bundle(tmp_path / "a", **networks, sure=[0.7], **COMMON)
    assert read_bundle(tmp_path / "a").sure == bundle.sure == (0.7,)
    assert export_source(tmp_path / "a", tmp_path / "b", command="again").sure == (0.7,)
    assert export_source(tmp_path / "a", tmp_path / "c", command="other", sure=(0.6,)).sure == (0.6,)
    for wrong, said in (([0.7, 0.8], "one number for each of the 1 levels"), ([1.0], "between 0 and 1")):
        with pytest.raises(InputError, match=f"such a bundle cannot be made: sure must .*{said}"):
            export_bundle(tmp_path / "d", **networks, sure=wrong, **COMMON)
    assert not (tmp_path / "d").exists()


def test_one_sigma_needs_no_estimator(probe: Make, tmp_path: Path) -> None:
    alone: dict[str, Any] = {"sigmas": (0.5,), "classes": ("a", "b", "c"), "input_shape": (1, 6, 6)}
    bundle = export_bundle(tmp_path / "b", classifiers=[probe(3)], **alone)
    assert (bundle.sigma_e, bundle.estimator, list(bundle.files)) == (None, None, ["classifier.onnx"])
    assert "sigma_e" not in (tmp_path / "b" / "manifest.json").read_text()
    with pytest.raises(InputError, match="sigma_e is 1, the noise level of an estimator, and there is none"):
        export_bundle(tmp_path / "c", classifiers=[probe(3)], sigma_e=1, **alone)
    with pytest.raises(InputError, match="2 sigmas and no estimator to choose between them"):
        export_bundle(tmp_path / "c", classifiers=[probe(3)] * 2, **alone | {"sigmas": (0.25, 0.5)})
    routed = export_bundle(
        tmp_path / "d", estimator=probe(2), classifiers=[probe(3)] * 2, **alone | {"sigmas": (0.25, 0.5)}
    )
    assert routed.sigma_e == 0.5


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


@pytest.mark.parametrize("thing", [lambda x: x, None, b"file.onnx", {"state": 1}])
def test_what_is_no_network_is_refused_with_one_line(probe: Make, tmp_path: Path, thing: Any) -> None:
    for source in (thing, Ensemble((thing,))):
        with pytest.raises(InputError, match=r"expected an nn\.Module, an ONNX file's path, or Ensemble"):
            export_bundle(tmp_path / "b", estimator=probe(2), classifiers=[source] * 2, **COMMON)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": (0.5, 0.25)}, "sigmas must be positive and ascending"),
        ({"sigma_e": -1.0}, "sigma_e must be a positive number"),
        ({"sigma_e": float("nan")}, "pass plain, finite values"),
        ({"classes": ("a",)}, "classes must be at least 2 names"),
        ({"classes": (1, 2, 3)}, "classes must be at least 2 names"),
        ({"input_shape": (6, 6)}, r"input\.shape must be \[C, H, W\]"),
    ],
)
def test_what_no_reader_would_take_is_refused_before_any_work(
    probe: Make, tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "to_model", lambda *args: pytest.fail("work was done"))
    with pytest.raises(InputError, match=f"such a bundle cannot be made: .*{message}"):
        export_bundle(tmp_path / "b", estimator=probe(2), classifiers=[probe(3)] * 2, **(COMMON | change))
    assert list(tmp_path.iterdir()) == []


def test_one_classifier_per_level(probe: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 classifiers for 2 sigmas"):
        export_bundle(tmp_path / "bundle", estimator=probe(2), classifiers=[probe(3)], **COMMON)


def half_space(name: str = "x", batch: int | str = "batch", cut: float = 0.5, opset: int = 18) -> bytes:
    """A network on [N,1,6,6] that votes 1 where the mean pixel exceeds `cut`, without torch."""
    nodes = [
        helper.make_node("Reshape", [name, "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 1, 6, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 2])],
        [
            numpy_helper.from_array(np.array([batch if isinstance(batch, int) else 0, -1], np.int64), "flat"),
            numpy_helper.from_array(np.stack([np.zeros(36), np.ones(36) / 36], 1).astype(np.float32), "w"),
            numpy_helper.from_array(np.array([0, -cut], np.float32), "b"),
        ],
    )  # fmt: skip
    if batch == "batch" and name == "x":
        graph.node[1].output[0] = graph.output[0].name = "logits"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(model.SerializeToString())


def _write(out: Path, **changes: Any) -> None:
    model = BaseModel(("a.onnx",))
    settings = {**COMMON, "estimator": model, "classifiers": (model, model), "precision": "fp32", "provenance": {}}
    settings["classes"] = ("a", "b")
    write_bundle(out, {"a.onnx": half_space()}, **{**settings, **changes})


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="sigma_e must be"):
        _write(tmp_path / "bundle", sigma_e=-1.0)
    real, calls = writing.write_atomically, []

    def full_disk(path: Path, data: bytes | str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise InputError("cannot write: no space left")
        real(path, data)

    monkeypatch.setattr(writing, "write_atomically", full_disk)
    with pytest.raises(InputError, match="no space"):
        _write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_can_be_read_by_others(tmp_path: Path) -> None:
    _write(tmp_path / "bundle")
    assert (tmp_path / "bundle").stat().st_mode & 0o700 == 0o700
    assert (tmp_path / "bundle").stat().st_mode & 0o777 != 0o700


class Conditional(nn.Module):
    """Votes 1 where the mean pixel exceeds the noise level."""

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(level), level - sigma], 1)


def test_a_module_that_wants_sigma_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    path.write_bytes(half_space())
    settings = {**COMMON, "classes": ("a", "b")}
    bundle = export_bundle(tmp_path / "b", estimator=path, classifiers=[Conditional()] * 2, **settings)
    engine = OnnxEngine(bundle)
    (model,) = set(bundle.classifiers)
    assert engine.takes_sigma(model)
    assert not engine.takes_sigma(bundle.estimator)
    batch = np.full((3, 1, 6, 6), 0.4, np.float32)
    assert engine.votes(model, batch, 0.25, 2).tolist() == [1, 1, 1]
    assert engine.votes(model, batch, 0.5, 2).tolist() == [0, 0, 0]


def test_ensembles_and_experts_of_files(tmp_path: Path) -> None:
    paths = []
    for i, cut in enumerate((0.2, 0.4, 0.9)):
        paths.append(tmp_path / f"{i}.onnx")
        paths[-1].write_bytes(half_space("image", cut=cut))
    settings = {**COMMON, "classes": ("a", "b")}
    bundle = export_bundle(
        tmp_path / "b", estimator=paths[0], classifiers=[Ensemble(tuple(paths), 2), paths[1]], **settings
    )
    assert bundle.classifiers[0].consensus == 2
    assert len(bundle.classifiers[0].members) == 3
    assert bundle.classifiers[1].members == (bundle.classifiers[0].members[1],)
    assert bundle.estimator.members == ("estimator.onnx",)
    engine = OnnxEngine(bundle)
    batch = np.stack([np.full((1, 6, 6), level, np.float32) for level in (0.1, 0.3, 0.6)])
    assert engine.votes(bundle.classifiers[0], batch, 0.25, 2).tolist() == [0, 0, 1]
    for consensus in (-1, 4):
        with pytest.raises(InputError, match="consensus"):
            export_bundle(
                tmp_path / "c", estimator=paths[0], classifiers=[Ensemble(tuple(paths), consensus)] * 2, **settings
            )


def test_large_weights_lie_beside_the_graph(tmp_path: Path) -> None:
    """With the limit lowered to nothing, every weight of 1 kB or more moves into a second file, hashed alike."""
    wide = onnx.load_from_string(half_space())
    extra = numpy_helper.from_array(np.random.default_rng(0).random((36, 36), np.float32), "mix")
    wide.graph.initializer.append(extra)
    wide.graph.node.insert(1, helper.make_node("MatMul", ["f", "mix"], ["m"]))
    wide.graph.node[2].input[0] = "m"
    path = tmp_path / "e.onnx"
    path.write_bytes(wide.SerializeToString())
    settings = {**COMMON, "classes": ("a", "b"), "estimator": path, "classifiers": [path] * 2}
    apart = export_bundle(tmp_path / "apart", external_above=0, **settings)
    whole = export_bundle(tmp_path / "whole", **settings)
    assert sorted(apart.files) == ["classifier.data", "classifier.onnx", "estimator.data", "estimator.onnx"]
    assert (apart.path / "estimator.onnx").stat().st_size < (whole.path / "estimator.onnx").stat().st_size
    batch = np.random.default_rng(1).random((64, 1, 6, 6), np.float32)
    votes = [OnnxEngine(b).votes(b.estimator, batch, 1.0, 2).tolist() for b in (apart, whole)]
    assert votes[0] == votes[1]
    (apart.path / "estimator.data").write_bytes(bytes(36 * 36 * 4))
    with pytest.raises(BundleError, match="altered"):
        read_bundle(apart.path)
    assert serialise(wide, "e.onnx", 0) == serialise(wide, "e.onnx", 0)


def test_the_same_networks_give_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    path.write_bytes(half_space("image", batch=1))
    settings = {
        **COMMON,
        "classes": ("a", "b"),
        "estimator": path,
        "classifiers": [path] * 2,
        "normalise": dict.fromkeys(("estimator", "classifier"), ((0.1,), (2,))),
    }
    for name in ("one", "two"):
        export_bundle(tmp_path / name, **settings)
    for name in ("manifest.json", "README.md", "estimator.onnx", "classifier.onnx"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_normalisation_goes_to_its_network_alone(tmp_path: Path, probe: Make) -> None:
    settings: dict[str, Any] = {
        "sigmas": (0.5,), "sigma_e": 0.5, "classes": ("a", "b", "c"), "input_shape": (1, 6, 6),
        "estimator": probe(1), "classifiers": [probe(3)], "parity_batches": (1,),
    }  # fmt: skip
    for bad, message in (
        ({"mean": (0.1,), "std": (0.5,)}, "do not say for which network"),
        ({"normalise": {"router": ((0.1,), (0.5,))}}, "expected estimator and classifier"),
        ({"normalise": {"estimator": ((73.0,), (90.0,))}}, "divide by 255: estimator mean 0.2863"),
    ):
        with pytest.raises(InputError, match=message):
            export_bundle(tmp_path / "b", **settings, **bad)
    export_bundle(tmp_path / "b", **settings, normalise={"classifier": ((0.1,), (0.5,))})
    x = np.random.default_rng(0).random((2, 1, 6, 6), np.float32)
    for name, network, seen in (
        ("estimator", probe(1).eval(), x), ("classifier", probe(3).eval(), (x - np.float32(0.1)) / np.float32(0.5)),
    ):  # fmt: skip
        session = onnxruntime.InferenceSession(tmp_path / "b" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        with torch.no_grad():
            expected = network(torch.from_numpy(seen)).numpy()
        np.testing.assert_allclose(session.run(["logits"], {"x": x})[0], expected, rtol=1e-4, atol=1e-4)


class BatchStatistics(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return (flat - flat.mean(0, keepdim=True))[:, :2]


def test_networks_that_look_at_the_rest_of_the_batch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    path.write_bytes(half_space())
    settings = {**COMMON, "classes": ("a", "b")}
    with pytest.raises(BundleError, match="with the other images of its batch"):
        export_bundle(tmp_path / "b", estimator=path, classifiers=[BatchStatistics()] * 2, **settings)
    assert not (tmp_path / "b").exists()


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    _write(tmp_path / "bundle", classes=("a|b `x`", "c"))
    card = (tmp_path / "bundle" / "README.md").read_text()
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.manifest_sha256 in card
    assert bundle.files["a.onnx"] in card
    assert "a b x" in card
