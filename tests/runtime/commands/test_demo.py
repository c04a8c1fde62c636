"""The shipped bundle and images, and the demo on a small budget."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import DATA, SHIPPED, SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands import demo
from dualsmooth.runtime.datasets.fashion_mnist import fashion_mnist_folder
from dualsmooth.runtime.datasets.formats import load_dataset


def test_shipped_files_are_small_and_say_how_they_were_made() -> None:
    cifar10 = SHIPPED["cifar10"].folder
    size = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in (DATA, cifar10)}
    assert size[cifar10] < 16e6
    assert size[DATA] - size[cifar10] < 5e6
    provenance = ds.read_bundle(SHIPPED_BUNDLE).provenance
    for made in (*provenance["training"], provenance["export"], provenance["source"]["export"]):
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


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Matplotlib and Pillow, and with each noise level alone as a baseline."""
    for name in ("matplotlib", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["demo", "--images", "2", "--budget", "fixed:200", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert out.count("Ankle boot") >= 1
    names = re.findall(r"^\| (\S+) \| ", out, re.M)
    assert names == ["---", "single:0.25", "single:0.5", "single:1", "interval"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert '"png":{"0":' in page
    assert all(f'"name":"{name}"' in page for name in names[1:])


def test_the_demo_takes_the_budget_that_its_help_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, not that of the other commands."""
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    stated = re.findall(r"\(default ([a-z]+:[0-9][^)]*)\)", " ".join(capsys.readouterr().out.split()))
    assert stated == [str(ds.Adaptive(10_000, 0.0))]
    asked = []

    def ended(*_: object, sampling: dict[str, object], **__: object) -> None:
        asked.append(sampling["budget"])

    monkeypatch.setattr(demo, "run_demo", ended)
    assert main(["demo", "--images", "1", "--out", str(tmp_path)]) == 0
    assert main(["demo", "--images", "1", "--mode", "standard", "--out", str(tmp_path)]) == 0
    assert asked == [ds.Adaptive(10_000, 0.0), ds.Fixed(10_000)]


@pytest.mark.parametrize("how", ["on the path", "by its path", "as a module"])
def test_the_commands_that_the_demo_names_work_as_printed(how: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin dir"
    programs.mkdir()
    code = "import sys\nfrom dualsmooth.cli import main\nsys.exit(main())\n"
    (programs / "dualsmooth").write_text(f"#!{sys.executable}\n{code}")
    (programs / "dualsmooth").chmod(0o755)
    starts = {
        "on the path": "dualsmooth",
        "by its path": "'bin dir/dualsmooth'",
        "as a module": f"{sys.executable} -m dualsmooth",
    }
    found = f"{programs}:" if how == "on the path" else ""
    env = os.environ | {"PATH": found + os.environ["PATH"], "OMP_NUM_THREADS": "1"}

    def shell(line: str) -> str:
        done = subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = shell(f"{starts[how]} demo --images 1 --budget fixed:100")
    commands = out[out.index("next: ") :].splitlines()[1:]
    assert len(commands) == 3
    assert all(command.strip().startswith(starts[how]) for command in commands)
    said = [shell(command.replace("--max 100", "--max 2 --budget fixed:100")) for command in commands]
    assert "replayed votes are identical" in said[1]
    assert "2 results in build/demo/results.jsonl" in said[2]


def test_demo_says_how_many_images_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--images", "201", "--out", str(tmp_path / "demo")]) == 2
    assert "expected 1 to 200" in capsys.readouterr().err


def test_an_earlier_page_is_kept_without_force(tmp_path, capsys) -> None:
    (tmp_path / "report.html").write_text("mine")
    assert main(["demo", "--images", "1", "--out", str(tmp_path)]) == 2
    assert "report.html exists; choose another --out, or add --force" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
