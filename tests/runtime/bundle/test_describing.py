"""`dualsmooth inspect`: what a bundle is, for people and for programs; the specification says what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import toys

from dualsmooth.cli import main
from dualsmooth.runtime.bundle.describing import cost, describe, sentences, size
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.files import sha256_of
from dualsmooth.runtime.graphs.admission import OPERATORS
from dualsmooth.runtime.graphs.rows import MIXING, RANDOM

SPECIFICATION = Path(__file__).parents[3] / "docs" / "bundle.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.2, 0.4]
    )


def test_json_for_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path / "notes.txt").write_text("mine")
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["manifest_sha256"] == sha256_of(path / "manifest.json")
    assert [level["sigma"] for level in facts["levels"]] == [0.25, 0.5]
    file = facts["files"]["classifier_0.onnx"]
    assert file["sha256"] == sha256_of(path / "classifier_0.onnx")
    assert file["bytes"] == (path / "classifier_0.onnx").stat().st_size
    assert (file["multiply_adds"], file["uncounted"], file["nodes"]) == (4, [], 2)
    assert file["weights"] == {"float": 6}
    assert facts["estimator"]["multiply_adds"] == 4
    assert facts["unlisted"] == ["notes.txt"]


def test_text_for_people(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("fp32", "sigma 0.25", "4 multiply-adds", "0 class 0, 1 class 1", sha256_of(path / "estimator.onnx")):
        assert part in text


def test_ensembles_cost_the_sum_and_at_least_the_first(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["classifiers"][0] = {"members": ["classifier_0.onnx", "classifier_1.onnx"], "consensus": 1}
    (path / "manifest.json").write_text(json.dumps(manifest))
    level = describe(read_bundle(path))["levels"][0]
    assert (level["multiply_adds"], level["least_multiply_adds"]) == (8, 4)
    assert "the first 1 decide" in sentences(describe(read_bundle(path)))


def test_a_bundle_cannot_steer_the_terminal(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["classes"][0] = "\x1b]0;owned\x07"
    manifest["provenance"] = {"dataset": "a\x1b[2J\r\nb", "training": "no list", "export": 3}
    (path / "manifest.json").write_text(json.dumps(manifest))
    text = sentences(describe(read_bundle(path)))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_it_works_without_the_onnx_package() -> None:
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None\n"
        f"from dualsmooth.cli import main; sys.exit(main(['inspect', {str(SHIPPED_BUNDLE)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6.41 M multiply-adds" in done.stdout


def test_bad_bundles_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_230_000, 5e9, 7e12)] == [
        "0 B", "999 B", "1 kB", "2.23 MB", "5 GB", "7e+03 GB",
    ]  # fmt: skip


def test_the_specification_lists_the_operators_of_the_code() -> None:
    text = SPECIFICATION.read_text()
    refused, _, allowed = text.partition("Allowed are")
    assert set(re.findall(r"`(\w+)`", allowed.split("\n\n")[1])) == OPERATORS
    section = refused[refused.index("Refused always") :]
    assert RANDOM | set(MIXING) <= set(re.findall(r"`(\w+)`", section))
    assert not OPERATORS & (RANDOM | set(MIXING) | {"Loop", "Scan"})


@pytest.mark.parametrize(
    ("counted", "uncounted", "said"),
    [
        (0, ["Conv", "GRU"], "multiply-adds unknown (Conv, GRU not counted)"),
        (5, ["LSTM"], "at least 5 multiply-adds (LSTM not counted)"),
        (0, [], "no convolutions or matrix products"),
        (5, [], "5 multiply-adds"),
    ],
)
def test_what_was_not_counted_is_never_nothing(counted: int, uncounted: list[str], said: str) -> None:
    assert cost(counted, uncounted) == said
