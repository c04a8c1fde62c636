"""ONNX files that end too early, wherever they end: not loaded, and not exported, even where the hash is theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.files import sha256_of


def cuts(size: int) -> list[int]:
    """Nothing, every length of the header, about a hundred in between, and every length near the end."""
    spread = range(0, size, max(1, size // 100))
    return sorted({*range(min(20, size)), *spread, *range(max(0, size - 16), size)})


@pytest.mark.parametrize("name", ["estimator.onnx", "classifier_1.onnx"])
@pytest.mark.parametrize("hashed", [False, True], ids=["hash of the whole file", "hash of what is left"])
def test_a_cut_file_is_not_loaded(source: Path, tmp_path: Path, name: str, hashed: bool) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(source / "bundle", bundle)
    whole = (bundle / name).read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text())
    for size in cuts(len(whole)):
        (bundle / name).write_bytes(whole[:size])
        if hashed:
            manifest["files"][name]["sha256"] = sha256_of(bundle / name)
            (bundle / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ds.BundleError):
            ds.load(bundle)


@pytest.mark.parametrize("role", ["estimator", "classifier"])
def test_a_cut_file_is_not_exported(
    source: Path, tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (source / "bundle" / "estimator.onnx").read_bytes()
    cut, out = tmp_path / "cut.onnx", tmp_path / "made"
    files = {name: str(source / "bundle" / f"{name}.onnx") for name in ("estimator", "classifier_0")}
    chosen = {"estimator": files["estimator"], "classifier": files["classifier_0"]} | {role: str(cut)}
    command = ["export", *(part for name, path in chosen.items() for part in (f"--{name}", path))]
    command += ["--sigmas", "0.25,0.5", "--classes", "2", "--input-shape", "1,1,2", "--out", str(out)]
    for size in cuts(len(whole)):
        cut.write_bytes(whole[:size])
        assert main(command) == 2, size
        assert capsys.readouterr().err.startswith("dualsmooth: "), size
        assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["cut.onnx"]
    cut.write_bytes(whole)
    assert main(command) == 0
