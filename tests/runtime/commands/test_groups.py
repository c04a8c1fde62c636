"""Groups, sets, norms and modes on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.reading import MANIFEST

GROUPS = {"right": ["class 1", "class 2"]}
QUICK = ["--budget", "fixed:2000", "--seed", "1", "--noise", "float"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle of three classes, an image that is torn between two, a data set of it, and groups."""
    monkeypatch.chdir(tmp_path)
    toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[2.0], classifier_cuts=[[0.0, 1.0], [0.0, 1.0]]
    )
    np.save("torn.npy", toys.image(1.0, 0.5))
    images = np.array([[[255, 128]], [[128, 128]], [[255, 0]]], np.uint8)
    np.savez("set.npz", x=images, y=np.array([2, 1, 0]))
    Path("groups.json").write_text(json.dumps(GROUPS))
    Path("groups.toml").write_text('right = ["class 1", 2]\n')
    Path("numbers.json").write_text('{"right": [1, 2]}')
    return tmp_path


def test_certify_and_predict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("groups.json", "groups.toml"):
        assert main(["certify", "b", "torn.npy", "--groups-file", file, *QUICK]) == 0
        assert "torn.npy: right (class 1, class 2), certified radius 0." in capsys.readouterr().out
    assert main(["certify", "b", "torn.npy", "--at-most", "2", *QUICK]) == 0
    assert "torn.npy: class 1 or class 2, certified radius 0." in capsys.readouterr().out
    assert main(["predict", "b", "torn.npy", "--groups-file", "groups.json", "-n", "500", "--noise", "float"]) == 0
    assert capsys.readouterr().out.startswith("torn.npy: ")


def test_verify_says_whose_groups_they_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "b", "torn.npy", "--groups-file", "groups.json", "--json", *QUICK]) == 0
    Path("c.json").write_text(capsys.readouterr().out)
    assert main(["verify", "c.json", "--bundle", "b", "--replay", "torn.npy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["label"], said["group"], said["answer"]) == (None, "right", [1, 2])
    assert "its groups are not the bundle's: the issuer chose them" in said["notes"]


def test_groups_of_the_bundle(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "b", "torn.npy", "--groups"]) == 2
    assert "which has none; pass groups of your own (--groups-file)" in capsys.readouterr().err
    manifest = json.loads((here / "b" / MANIFEST).read_text())
    (here / "b" / MANIFEST).write_text(json.dumps(manifest | {"groups": {"right": [1, 2]}}))
    assert main(["certify", "b", "torn.npy", "--groups", *QUICK]) == 0
    assert "right (class 1, class 2)" in capsys.readouterr().out
    assert main(["inspect", "b"]) == 0
    assert "groups     right: class 1, class 2" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": [1, 2], "a": [0, 1]}', '{"a": ["no class", 1]}'])
def test_a_file_that_is_none_is_refused(here: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.json").write_text(text)
    for file in ("odd.json", "missing.json"):
        assert main(["certify", "b", "torn.npy", "--groups-file", file]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "group" in line


def test_an_evaluation_with_groups(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ["evaluate", "b", "--dataset", "npz:set.npz", "--classes", "class 0,class 1,class 2", *QUICK]
    assert main([*evaluate, "--out", "r.jsonl", "--groups-file", "groups.json"]) == 0
    columns = ds.read_results("r.jsonl")
    assert columns["group"].tolist() == ["right", "", "right"]
    assert columns["abstained"].tolist() == [False] * 3
    assert columns["covered"].tolist() == [True, True, False]
    capsys.readouterr()
    assert main([*evaluate, "--out", "r.jsonl"]) == 2
    assert "holds results with groups" in capsys.readouterr().err
    assert main([*evaluate, "--out", "plain.jsonl"]) == 0
    capsys.readouterr()
    assert main(["merge", "r.jsonl", "plain.jsonl", "--out", "m.jsonl"]) == 2
    assert main(["report", "r.jsonl", "--out", "r.html", "--out", "r.png", "--json"]) == 0
    shares = json.loads(capsys.readouterr().out)["curves"]
    assert [shares[f"interval, {kind}"][0] for kind in ("label", "label or group")] == pytest.approx([1 / 3, 2 / 3])
    assert "1 labels, 2 groups or sets, 0 abstentions" in Path("r.html").read_text()
    assert main(["report", "plain.jsonl", "--groups", "numbers.json", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["curves"]) == [
        "interval", "interval, label", "interval, label or group",
    ]  # fmt: skip
    assert main(["report", "plain.jsonl", "--groups", "b"]) == 2


def test_a_report_in_another_norm(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ["evaluate", "b", "--dataset", "npz:set.npz", "--classes", "class 0,class 1,class 2", *QUICK]
    assert main([*evaluate, "--out", "r.jsonl", "--mode", "quick"]) == 2
    assert "pass one of them" in capsys.readouterr().err
    assert main([*evaluate, "--out", "r.jsonl"]) == 0
    radius = max(ds.read_results("r.jsonl")["radius"])
    capsys.readouterr()
    below, above = radius / np.sqrt(2) - 1e-5, radius / np.sqrt(2) + 1e-5
    linf = ["report", "r.jsonl", "--norm", "linf", "--radii", f"{below},{above}", "--json"]
    assert main([*linf, "--input-shape", "1,1,2", "--out", "r.svg", "--out", "r.csv"]) == 0
    (curve,) = json.loads(capsys.readouterr().out)["curves"].values()
    assert curve == [pytest.approx(1 / 3), 0.0]
    assert main(linf) == 2
    assert "--input-shape" in capsys.readouterr().err
    assert main([*linf, "--input-shape", "1,1,2", "--out", "r.html"]) == 2
    assert "which is in L2" in capsys.readouterr().err


def test_modes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "b", "torn.npy", "--mode", "decide", "--r", "0.1", "--groups-file", "groups.json"]) == 0
    assert "certified at 0.1: yes" in capsys.readouterr().out
    assert main(["certify", "b", "torn.npy", "--mode", "decide"]) == 2
    assert "without r" in capsys.readouterr().err
    assert main(["certify", "b", "torn.npy", "--mode", "quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["terms"]["budget"] == "adaptive:1000:0.05"
