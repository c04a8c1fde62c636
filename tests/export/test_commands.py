"""`dualsmooth export` on bundles and ONNX files, and one clear line for every bad argument."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dualsmooth.cli import main
from dualsmooth.export.checks.agreement import FLOORS
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.training.networks.architectures import architecture
from dualsmooth.training.run.record import code_version

ROOT = Path(__file__).parents[2]
FILES = [
    "--estimator", str(SHIPPED_BUNDLE / "estimator.onnx"), "--classifier", str(SHIPPED_BUNDLE / "classifier_1.onnx"),
    "--sigmas", "0.25,0.5,1",
]  # fmt: skip


@pytest.mark.slow
def test_another_precision_of_a_bundle_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = f"npz:{SHIPPED_IMAGES}"
    arguments = ["export", str(SHIPPED_BUNDLE), "--out", str(tmp_path / "b"), "--precision", "int8"]
    arguments += ["--calibration", images, "--report", images, "--report-images", "2", "--report-passes", "150"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "votes like fp32 on" in out
    assert "| fp32 |" in out
    assert "| int8 |" in out
    bundle, shipped = read_bundle(tmp_path / "b"), read_bundle(SHIPPED_BUNDLE)
    assert bundle.provenance["source"]["manifest_sha256"] == shipped.manifest_sha256
    assert bundle.provenance["config"] == shipped.provenance["config"]
    assert bundle.provenance["export"].items() >= code_version().items()
    assert (bundle.sigmas, bundle.classes) == (shipped.sigmas, shipped.classes)
    assert main(["export", str(tmp_path / "b"), "--out", str(tmp_path / "c")]) == 2
    assert "only an fp32 bundle" in capsys.readouterr().err


def test_nothing_is_exported_where_the_data_set_of_the_report_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(SHIPPED_IMAGES) as arrays:
        np.savez(tmp_path / "d.npz", x=arrays["x"], y=arrays["y"], classes=np.array([f"c{i}" for i in range(10)]))
        np.savez(tmp_path / "wide.npz", x=arrays["x"].repeat(2, axis=2), y=arrays["y"])
    for name, message in (("d", "has classes that the bundle has not: 'c0', 'c1'"), ("wide", "28 pixels high and 56")):
        more = ["--precision", "fp16", "--report", f"npz:{tmp_path / name}.npz", "--out", str(tmp_path / "b")]
        assert main(["export", str(SHIPPED_BUNDLE), *more]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "b").exists()


def test_onnx_files_with_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    (tmp_path / "names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    more = ["--classes", str(tmp_path / "names.txt"), "--classifier-mean", "0.5"]
    more += ["--classifier-std", "0.5"]
    for name in ("one", "two"):
        assert main(["export", *FILES, *more, "--out", str(tmp_path / name)]) == 0
    one = read_bundle(tmp_path / "one")
    assert one.classes[9] == "class 9"
    assert one.sigma_e == 1.0
    assert one.provenance["export"]["created"] == "1970-01-01T00:00:00+00:00"
    assert one.provenance["export"].items() >= code_version().items()
    assert one.files == read_bundle(tmp_path / "two").files
    x = np.random.default_rng(0).random((16, 1, 28, 28), np.float32)
    plain, wrapped = OnnxEngine(read_bundle(SHIPPED_BUNDLE)), OnnxEngine(one)
    shipped = read_bundle(SHIPPED_BUNDLE)
    expected = plain.votes(shipped.classifiers[2], (x - 0.5) / 0.5, 1.0, 10)
    np.testing.assert_array_equal(wrapped.votes(one.classifiers[2], x, 1.0, 10), expected)
    same = plain.votes(shipped.estimator, x, 1.0, 3)
    np.testing.assert_array_equal(wrapped.votes(one.estimator, x, 1.0, 3), same)  # it got no normalisation


def test_a_checkpoint_with_its_architecture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = architecture("resnet8", 10, (1, 28, 28)).eval()
    names = network.published_names()  # type: ignore[operator]
    values = {f"1.module.{names[own]}": value for own, value in network.state_dict().items()}
    torch.save({"arch": "cifar_resnet8", "state_dict": values, "best": np.float64(1)}, tmp_path / "c.pth.tar")
    command = ["export", *FILES[:3], str(tmp_path / "c.pth.tar"), *FILES[4:], "--classes", "10", "--out"]
    command += [str(tmp_path / "b")]
    assert main(command) == 2
    assert "is a PyTorch checkpoint, which holds no architecture" in capfd.readouterr().err
    assert main([*command, "--classifier-arch", "resnet8"]) == 2
    assert "behind a first layer without weights" in capfd.readouterr().err
    command += ["--classifier-arch", "resnet8", "--classifier-mean", "0.3", "--classifier-std", "0.2"]
    assert main(command) == 0
    session = onnxruntime.InferenceSession(tmp_path / "b" / "classifier.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    with torch.no_grad():
        expected = network((torch.from_numpy(x) - 0.3) / 0.2).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
    assert read_bundle(tmp_path / "b").provenance["architectures"] == {"classifier": "resnet8"}


def test_preprocessing_goes_into_the_manifest_and_along_with_it(tmp_path: Path) -> None:
    files = [*FILES[2:5], "1", "--classes", "10"]
    assert main(["export", *files, "--out", str(tmp_path / "b"), "--resize", "32", "--resampling", "bicubic"]) == 0
    made = read_bundle(tmp_path / "b").preprocessing
    assert made == Preprocessing((1, 28, 28), 32, "bicubic")
    assert f"- pictures: of any size: {made.words}; radii" in (tmp_path / "b" / "README.md").read_text()
    half = ["export", str(tmp_path / "b"), "--precision", "fp16", "--force"]
    assert main([*half, "--out", str(tmp_path / "kept")]) == 0
    assert read_bundle(tmp_path / "kept").preprocessing == made
    assert main([*half, "--out", str(tmp_path / "other"), "--resize", "28,30"]) == 0
    assert read_bundle(tmp_path / "other").preprocessing == Preprocessing((1, 28, 28), (28, 30), "bilinear")


def test_one_sigma_without_a_router(tmp_path: Path) -> None:
    files = [*FILES[2:5], "1", "--classes", "10"]
    assert main(["export", *files, "--out", str(tmp_path / "b")]) == 0
    made = read_bundle(tmp_path / "b")
    assert (made.sigmas, made.sigma_e, made.estimator, list(made.files)) == ((1.0,), None, None, ["classifier.onnx"])
    assert made.input_shape == (1, 28, 28)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "robustness, by randomized" in card
    assert "variance estimator" not in card
    assert main(["export", str(tmp_path / "b"), "--out", str(tmp_path / "half"), "--precision", "fp16", "--force"]) == 0
    assert read_bundle(tmp_path / "half").estimator is None


BAD: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "pass a run directory"),
    "both": ([str(SHIPPED_BUNDLE), *FILES], "exclude each other"),
    "no classes": (FILES, "--classes is missing"),
    "sigmas": ([*FILES[:-1], "a,b", "--classes", "10"], "expected numbers with commas"),
    "wrong number of classes": ([*FILES, "--classes", "9"], "expected finite values of shape"),
    "names of classes": ([*FILES, "--classes", "a,b,c"], "expected finite"),
    "missing file": ([*FILES[:3], "gone.onnx", *FILES[4:], "--classes", "10"], "gone.onnx is not a file"),
    "two classifiers": ([*FILES, "--classifier", FILES[3], "--classes", "10"], "2 classifiers for 3 sigmas"),
    "shape": ([*FILES, "--classes", "10", "--input-shape", "28,28"], "expected C,H,W"),
    "another shape": ([*FILES, "--classes", "10", "--input-shape", "3,28,28"], "expected [N,3,28,28]"),
    "precision": ([str(SHIPPED_BUNDLE), "--precision", "fp4"], "is unknown"),
    "no calibration": ([str(SHIPPED_BUNDLE), "--precision", "int8"], "pass --calibration"),
    "report of fp32": ([str(SHIPPED_BUNDLE), "--report", "fashion-mnist"], "add --precision"),
    "no report images": ([str(SHIPPED_BUNDLE), "--report-images", "0"], "--report-images is 0"),
    "floor": ([str(SHIPPED_BUNDLE), "--precision", "fp16", "--floor", "95"], "floor is 95"),
    "mean": ([*FILES, "--classes", "10", "--classifier-mean", "x"], "--classifier-mean 'x'"),
    "whose mean": ([*FILES, "--classes", "10", "--mean", "0.5", "--std", "0.5"], "pass --classifier-mean"),
    "resize below": ([*FILES, "--classes", "10", "--resize", "20"], "preprocessing.resize must leave 28 x 28 pixels"),
    "resize text": ([*FILES, "--classes", "10", "--resize", "big"], "--resize 'big'; expected numbers"),
    "resize half": ([*FILES, "--classes", "10", "--resize", "28.5"], "expected pixels of the shorter side"),
    "resampling": (
        [*FILES, "--classes", "10", "--resize", "32", "--resampling", "x"],
        "must be one of bilinear, bicubic",
    ),
    "resampling alone": ([*FILES, "--classes", "10", "--resampling", "box"], "without --resize, which it is about"),
    "no estimator": ([*FILES[2:], "--classes", "10"], "3 sigmas and no estimator to choose between them"),
    "sigma_e of none": ([*FILES[2:5], "1", "--sigma-e", "1", "--classes", "10"], "sigma_e is 1.0, the noise level of"),
    "mean alone": ([*FILES, "--classes", "10", "--classifier-mean", "0.5"], "given without --classifier-std"),
    "0 to 255": (
        [*FILES, "--classes", "10", "--estimator-mean", "73", "--estimator-std", "90"],
        "--estimator-mean 0.2863",
    ),
    "arch of ONNX": ([*FILES, "--classes", "10", "--classifier-arch", "resnet8"], "cannot read"),
    "unknown arch": ([*FILES, "--classes", "10", "--classifier-arch", "vgg"], "architecture 'vgg' is unknown"),
    "no run": (["nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_one_line_and_leave_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main(["export", *arguments, "--out", "b"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_the_specification_states_the_floors() -> None:
    text = (ROOT / "docs" / "bundle.md").read_text()
    for precision, floor in FLOORS.items():
        assert f"| {precision} | {floor:.1%} |" in text
