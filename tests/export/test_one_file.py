"""A bare ONNX file in place of a bundle: certified as a bundle of one level is, once all is said that it lacks."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import toys
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.export import export_bundle, export_file
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.smoothing import bare
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, Stream

CUT, SIGMA = 0.3, 0.25
CLEAR, BESIDE = toys.image(0.7, 0.2), toys.image(CUT, 0.2)
TRUE = 0.7 - CUT
"""The radius of the half-space t >= CUT at CLEAR, whatever its sigma."""
BUDGET = ds.Fixed(2_000)
BOUNDED = Stream(CLASSIFIER, 0, ESTIMATION)


def as_skl2onnx(path: Path, *, scale: float = 1.0, mean: float = 0.0, labels: bool = False) -> Path:
    """The half-space as converters write it: a fixed batch, names of their own, an old opset, an idle domain,
    probabilities out. It votes 1 where t / scale + mean >= CUT for what it is given; `labels`: a second output."""
    weights = np.zeros((2, 2), np.float32)
    weights[0] = np.array([-9, 9]) / scale
    nodes = [
        helper.make_node("Reshape", ["X", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "coefficient"], ["multiplied"]),
        helper.make_node("Add", ["multiplied", "intercept"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=1),
    ]
    constants = {
        "shape": np.array([1, 2], np.int64),
        "coefficient": weights,
        "intercept": np.array([CUT - mean, mean - CUT], np.float32) * 9,
    }
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2])]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["raw"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, [1]))
    graph = helper.make_graph(
        nodes, "skl", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [1, *toys.SHAPE])], outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=6, producer_name="skl2onnx"), path)
    return path


def radius(source: Any, image: np.ndarray = CLEAR, **more: Any) -> float | None:
    return ds.certified_radius(source, image, **{"budget": BUDGET, "seed": 1} | more)


def test_votes_and_radius_are_those_of_its_bundle(tmp_path: Path) -> None:
    path = as_skl2onnx(tmp_path / "model.onnx")
    found = radius(path, sigma=SIGMA, pixels="0..1")
    export_file(path, tmp_path / "bundle", sigma=SIGMA, pixels="0..1")
    with ds.load(tmp_path / "bundle", threads=1) as smoother:
        made = smoother.certify(CLEAR, budget=BUDGET, seed=1, rule=f"single:{SIGMA}")
    assert found == made.radius == radius(str(path), sigma=SIGMA, pixels="0..1", threads=1)
    assert 0.6 * TRUE < made.radius < TRUE  # as the half-space has it in closed form
    assert radius(path, BESIDE, sigma=SIGMA, pixels="0..1") is None
    assert radius(path, sigma=SIGMA, pixels="0..1", label=0) is None
    by_hand = export_bundle(
        tmp_path / "hand", classifiers=[path], sigmas=[SIGMA], classes=["0", "1"], input_shape=toys.SHAPE,
        provenance=ds.read_bundle(tmp_path / "bundle").provenance | {"exported_with": None},
    )  # fmt: skip
    assert by_hand.files == ds.read_bundle(tmp_path / "bundle").files
    assert by_hand.manifest_sha256 == made.artefact.manifest_sha256


def test_what_it_takes_of_an_image_is_what_was_said(tmp_path: Path) -> None:
    """The same half-space for 0 to 255, and for normalised images: the radius is the true one only where that is
    said."""
    said: dict[str, tuple[Path, Any]] = {
        "bytes": (as_skl2onnx(tmp_path / "bytes.onnx", scale=255.0), "0..255"),
        "pair": (as_skl2onnx(tmp_path / "pair.onnx", scale=1 / 0.5, mean=0.1), (0.1, 0.5)),
        "lists": (as_skl2onnx(tmp_path / "lists.onnx", scale=1 / 0.5, mean=0.1), ([0.1], [0.5])),
    }
    for path, pixels in said.values():
        found = radius(path, sigma=SIGMA, pixels=pixels)
        assert found is not None
        assert 0.6 * TRUE < found < TRUE
    wrong = radius(said["bytes"][0], sigma=SIGMA, pixels="0..1", label=1)
    assert wrong is None  # 0.7 / 255 is far below the cut


def test_probabilities_vote_as_logits_do(tmp_path: Path) -> None:
    path = as_skl2onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node.pop()
    model.graph.output[0].name = "raw"
    onnx.save(model, tmp_path / "logits.onnx")
    bundles = [export_file(tmp_path / name, tmp_path / name[:-5], sigma=SIGMA, pixels="0..1") for name in
               ("model.onnx", "logits.onnx")]  # fmt: skip
    x = np.random.default_rng(0).normal(0.3, 0.25, (512, *toys.SHAPE)).astype(np.float32)
    votes = [OnnxEngine(bundle).votes(bundle.classifiers[0], x, SIGMA, 2).tolist() for bundle in bundles]
    assert votes[0] == votes[1]
    assert 100 < sum(votes[0]) < 412


def test_a_file_of_torchs_exporter(tmp_path: Path, probe: Any) -> None:
    network = probe(3).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 1, 6, 6),), tmp_path / "torch.onnx", dynamo=True,
                          external_data=False, verbose=False)  # fmt: skip
    image = np.random.default_rng(1).integers(0, 256, (1, 6, 6), np.uint8)
    ours = export_bundle(tmp_path / "b", classifiers=[network], sigmas=[0.1], classes="abc", input_shape=(1, 6, 6))
    theirs = export_file(tmp_path / "torch.onnx", tmp_path / "c", sigma=0.1, pixels="0..1", classes="a,b,c")
    assert theirs.classes == ours.classes
    made = []
    for bundle in (ours, theirs):
        x = image[None].repeat(300, 0) / 255 + np.random.default_rng(2).normal(0, 0.1, (300, 1, 6, 6))
        made.append(OnnxEngine(bundle).votes(bundle.classifiers[0], x.astype(np.float32), 0.1, 3).tolist())
    assert made[0] == made[1]
    found = ds.certified_radius(tmp_path / "torch.onnx", image, 0.1, pixels="0..1", classes="a,b,c", seed=1)
    with ds.load(theirs.path) as smoother:
        assert found == (smoother.certify(image, seed=1).radius or None)


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    path = as_skl2onnx(tmp_path / "model.onnx")
    lines = {
        (): r"does not say all that is needed; pass sigma.*; pixels.*: '0\.\.1'.*'0\.\.255'.*mean and std",
        ("sigma",): r"pass pixels",
        ("pixels",): r"pass sigma",
    }
    everything = {"sigma": SIGMA, "pixels": "0..1"}
    for given, line in lines.items():
        with pytest.raises(ds.InputError, match=line):
            radius(path, **{name: everything[name] for name in given})
    model = onnx.load(path)
    for value, dims in ((model.graph.input[0], ["n", "c", "h", "w"]), (model.graph.output[0], ["n", "k"])):
        value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, dims))
    onnx.save(model, tmp_path / "vague.onnx")
    with pytest.raises(ds.InputError, match=r"declares no fixed image shape.*input_shape=\(C, H, W\)"):
        radius(tmp_path / "vague.onnx", **everything)
    with pytest.raises(ds.InputError, match=r"does not declare how many classes.*classes="):
        radius(tmp_path / "vague.onnx", **everything, input_shape=toys.SHAPE)
    assert (radius(tmp_path / "vague.onnx", **everything, input_shape=toys.SHAPE, classes=2) or 0) > 0.6 * TRUE


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"pixels": "0-1"}, "pixels is '0-1'; expected '0..1'"),
        ({"pixels": (0.5, 0.4, 0.3)}, "expected '0..1'"),
        ({"pixels": 255}, "expected '0..1'"),
        ({"pixels": ([120.0], [60.0])}, "divide by 255"),
        ({"pixels": ([0.5, 0.5, 0.5], 0.5)}, "expected 1 or 1 finite numbers"),
        ({"pixels": (0.5, 0.0)}, "std: positive"),
        ({"sigma": "0.25"}, "sigma is '0.25'; expected one noise level"),
        ({"sigma": 64.0}, "inputs are in [0, 1]"),
        ({"sigma": -0.5}, "expected positive"),
        ({"classes": 3}, "check classes"),
        ({"classes": 1}, "classes"),
        ({"input_shape": (1, 2)}, "input_shape is (1, 2); expected C,H,W"),
        ({"input_shape": (1, 1, 3)}, "expected [N,1,1,3]"),
        ({"layout": "hwcn"}, "expected nchw or nhwc"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, given: dict[str, Any], line: str) -> None:
    path = as_skl2onnx(tmp_path / "model.onnx")
    with pytest.raises(ds.DualSmoothError) as error:
        radius(path, **{"sigma": SIGMA, "pixels": "0..1"} | given)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_classifiers(tmp_path: Path) -> None:
    said = {"sigma": SIGMA, "pixels": "0..1"}
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    as_skl2onnx(tmp_path / "two.onnx", labels=True)
    for name, kind, line in (
        ("gone.onnx", ds.InputError, "is not a file"),
        ("weights.pt", ds.InputError, "a PyTorch checkpoint"),
        ("page.onnx", ds.InputError, "an HTML page"),
        ("two.onnx", ds.BundleError, "expected one output .N,classes.: cut the others off"),
    ):
        with pytest.raises(kind, match=line):
            radius(tmp_path / name, **said)
    model = onnx.load(tmp_path / "two.onnx")
    del model.graph.output[1]
    onnx.save(model, tmp_path / "labels.onnx")
    with pytest.raises(ds.DualSmoothError):  # labels are no votes' logits
        radius(tmp_path / "labels.onnx", **said)
    one = onnx.load(as_skl2onnx(tmp_path / "one.onnx"))
    one.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(one, tmp_path / "one.onnx")
    with pytest.raises(ds.BundleError, match="one number an image"):
        radius(tmp_path / "one.onnx", **said)


def test_bundles_say_it_themselves(tmp_path: Path) -> None:
    toys.two_levels(tmp_path / "bundle")
    with pytest.raises(ds.InputError, match=r"pixels with .*; it is for a bare ONNX file"):
        radius(tmp_path / "bundle", pixels="0..1")
    with (
        ds.load(tmp_path / "bundle", threads=1) as smoother,
        pytest.raises(ds.InputError, match="classes with an open"),
    ):
        radius(smoother, classes=2)
    with pytest.raises(ds.BundleError, match=r"is an ONNX file, not a directory.*export --classifier"):
        ds.load(as_skl2onnx(tmp_path / "model.onnx"))


def test_without_the_export_stage_one_clear_line(tmp_path: Path) -> None:
    """In a process of its own: modules that are loaded again are others."""
    path = as_skl2onnx(tmp_path / "model.onnx")
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import numpy as np, dualsmooth as ds\n"
        f"ds.certified_radius({str(path)!r}, np.zeros({CLEAR.shape}, np.float32), {SIGMA}, pixels='0..1')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError" in last
    assert "needs onnx; pip install 'dualsmooth[export,cpu]'" in last


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = as_skl2onnx(tmp_path / "model.onnx", scale=1 / 0.5, mean=0.1)
    np.save(tmp_path / "image.npy", CLEAR)
    asked = ["certify", str(path), str(tmp_path / "image.npy"), "--budget", "fixed:2000", "--seed", "1", "--json"]
    said = ["--sigma", "0.25", "--pixels", "0.1/0.5"]
    assert main([*asked, *said, "--keep", str(tmp_path / "kept")]) == 0
    first = capsys.readouterr().out
    assert json.loads(first)["radius"] == radius(path, sigma=SIGMA, pixels=(0.1, 0.5))
    assert main([*asked, *said]) == 0
    assert capsys.readouterr().out == first  # the same call makes the same bundle again
    (tmp_path / "certificate.json").write_text(first)
    verify = ["verify", str(tmp_path / "certificate.json"), "--bundle", str(tmp_path / "kept")]
    assert main([*verify, "--replay", str(tmp_path / "image.npy")]) == 0
    capsys.readouterr()
    for more, line in (
        ([], "pass sigma"),
        (["--sigma", "0.25"], "pass pixels"),
        (["--sigma", "0.25", "--pixels", "0..2"], "--pixels '0..2'; expected 0..1, 0..255, or MEAN/STD"),
        ([*said, "--rule", "paper"], "pass one of them"),
        ([*said, "--input-shape", "1,x,2"], "--input-shape '1,x,2'"),
        ([*said, "--keep", str(tmp_path / "kept")], "exists and is not an empty directory"),
    ):
        assert main([*asked, *more]) == 2
        assert line in capsys.readouterr().err


def test_sigma_on_the_command_line_is_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.two_levels(tmp_path / "bundle")
    np.save(tmp_path / "image.npy", CLEAR)
    asked = ["certify", str(tmp_path / "bundle"), str(tmp_path / "image.npy"), "--budget", "fixed:200", "--seed", "1"]
    assert main([*asked, "--sigma", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["terms"]["rule"] == "single:0.5"
    for more, line in (
        (["--pixels", "0..1"], "pixels with"),
        (["--keep", "b"], "--keep b with"),
        (["--classes", "2"], "classes with"),
    ):
        assert main([*asked, *more]) == 2
        assert line in capsys.readouterr().err


def test_words_of_pixels() -> None:
    assert bare.parse_pixels("0..1") == "0..1"
    assert bare.parse_pixels("0.5,0.4,0.3/0.2,0.2,0.1") == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    for text in ("", "0.5", "a/b", "1/2/3", "0,,1/1"):
        with pytest.raises(ds.InputError, match=r"expected 0\.\.1, 0\.\.255, or MEAN/STD"):
            bare.parse_pixels(text)
