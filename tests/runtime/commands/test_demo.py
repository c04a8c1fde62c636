"""The shipped bundle and images, and the demo on a small budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import DATA, SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.fashion_mnist import fashion_mnist_folder
from dualsmooth.runtime.datasets.formats import load_dataset


def test_shipped_files_are_small_and_say_how_they_were_made() -> None:
    assert sum(f.stat().st_size for f in DATA.rglob("*") if f.is_file()) < 5e6
    provenance = ds.read_bundle(SHIPPED_BUNDLE).provenance
    for made in (*provenance["training"], provenance["export"]):
        assert len(made["commit"]) == 40
        assert made["dirty"] is False
        assert made["command"]
    assert provenance["seed"] == 0
    assert provenance["metrics"]


def test_shipped_images_are_test_images_that_may_be_used() -> None:
    with np.load(SHIPPED_IMAGES) as arrays:
        x, y, index = arrays["x"], arrays["y"], arrays["index"]
    assert len(x) == len(y) == 200
    assert index.max() < 8000
    if fashion_mnist_folder().is_dir():
        whole = load_dataset("fashion-mnist")
        assert np.array_equal(x, whole.images[index, 0])
        assert np.array_equal(y, whole.labels[index])


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--images", "2", "--budget", "fixed:200", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert out.count("Ankle boot") >= 1
    assert (tmp_path / "demo" / "certified-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert '"png":{"0":' in (tmp_path / "demo" / "report.html").read_text()


def test_demo_says_how_many_images_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--images", "201", "--out", str(tmp_path / "demo")]) == 2
    assert "expected 1 to 200" in capsys.readouterr().err


def test_an_earlier_page_is_kept_without_force(tmp_path, capsys) -> None:
    (tmp_path / "report.html").write_text("mine")
    assert main(["demo", "--images", "1", "--out", str(tmp_path)]) == 2
    assert "report.html exists; choose another --out, or add --force" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
