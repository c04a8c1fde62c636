"""Every example runs, and what it wrote is a bundle that certifies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import dualsmooth as ds

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("export_*.py"))
EXPECTED = {
    "export_module": {"classifier.onnx", "estimator.onnx"},
    "export_onnx_files": {"classifier.onnx", "estimator.onnx"},
    "export_torchvision": {"classifier.onnx"},
    "export_timm": {"classifier.onnx"},
    "export_routed_experts": {"estimator.onnx", *(f"classifier_{sigma}.onnx" for sigma in ("0.25", "0.5", "1"))},
    "export_denoiser": {"estimator.onnx", "classifier_0.25.onnx", *(f"classifier_0.5_{i}.onnx" for i in range(3))},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's exporter, called bare
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(tmp_path / "bundle"))
    assert "certified radius" in capsys.readouterr().out
    bundle = ds.read_bundle(tmp_path / "bundle")
    assert set(bundle.files) == EXPECTED[path.stem]


def test_every_example_is_listed() -> None:
    text = (EXAMPLES[0].parent / "README.md").read_text()
    assert {p.stem for p in EXAMPLES} == set(EXPECTED)
    assert all(f"`{p.name} OUT`" in text for p in EXAMPLES)
    others = {p.name for p in EXAMPLES[0].parent.iterdir() if not p.name.startswith((".", "_"))}
    assert not [name for name in others - {"README.md"} if f"`{name}" not in text]
