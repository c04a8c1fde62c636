"""A whole results file, derived: rows in order, resumed after a kill, never mixed with rows of another kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.cli import main
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.evaluation.results import load_results

DATA = ["--dataset", f"npz:{SHIPPED_IMAGES}"]
MANIFEST = read_bundle(SHIPPED_BUNDLE).manifest_sha256
EVALUATE = ["evaluate", str(SHIPPED_BUNDLE), *DATA, "--budget", "fixed:300", "--max", "3", "--seed", "1"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "old.jsonl"
    assert main([*EVALUATE, "--out", str(out)]) == 0
    return out


def derive(old: Path, out: Path, *options: str) -> list[str]:
    bundles = ["--old", str(SHIPPED_BUNDLE), "--bundle", str(SHIPPED_BUNDLE)]
    return ["derive", str(old), *bundles, *DATA, "--out", str(out), "--passes", "200", "--seed", "2", *options]


def rows(path: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [{**row, "seconds": 0} for row in found]


def test_a_network_derived_from_itself_never_disagrees(old: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "derived.jsonl"
    assert main(derive(old, out)) == 0
    before, after = load_results(old), load_results(out)
    assert [r.index for r in after] == [r.index for r in before] == [0, 1, 2]
    for a, b in zip(before, after, strict=True):
        assert (b.true_label, b.dataset) == (a.true_label, a.dataset)
        assert b.certificate.radius < a.certificate.radius or a.certificate.abstained
        cells = [cell for counts in b.certificate.derived.pairs.to_dict().values() for cell in counts]
        assert bool(cells) is (b.certificate.label is not None)
        assert all(cell.split(">")[0] == cell.split(">")[1] for cell in cells)
    assert any(r.certificate.label is not None for r in after)
    assert main(["report", str(out)]) == 0
    assert (
        f"derived      from votes of manifest {MANIFEST[:16]}…, with 200 paired passes a stream"
        in capsys.readouterr().out
    )


def test_it_goes_on_after_a_kill_with_the_same_noise(old: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert main(derive(old, whole)) == 0
    assert main(derive(old, cut, "--max", "1")) == 0
    cut.write_bytes(cut.read_bytes() + b'{"index": 1, "true')
    assert main(derive(old, cut)) == 0
    assert rows(cut) == rows(whole)


def test_kinds_of_rows_are_not_mixed(old: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "derived.jsonl"
    assert main(derive(old, out, "--max", "1")) == 0
    assert main([*EVALUATE, "--out", str(out)]) == 2
    assert f"holds results with derived {MANIFEST[:7]}" in capsys.readouterr().err
    assert main(derive(old, out, "--passes", "300")) == 2
    assert "holds results with derived" in capsys.readouterr().err
    assert main(derive(out, tmp_path / "twice.jsonl")) == 2
    assert "image 0: the certificate is derived already" in capsys.readouterr().err


def test_verify_recomputes_rows_and_replays_pairs(old: Path, tmp_path: Path, capsys) -> None:
    out, image = tmp_path / "derived.jsonl", tmp_path / "image.npy"
    assert main(derive(old, out, "--max", "1")) == 0
    with np.load(SHIPPED_IMAGES) as arrays:
        np.save(image, arrays["x"][0])
    capsys.readouterr()
    verify = ["verify", str(out), "--bundle", str(SHIPPED_BUNDLE)]
    assert main([*verify, "--old", str(SHIPPED_BUNDLE), "--replay", str(image)]) == 0
    said = capsys.readouterr().out
    assert "the votes are about the old bundle" in said
    assert "replayed votes are identical" in said
    assert main([*verify, "--strict"]) == 2
    assert main(["verify", str(out), "--old", str(SHIPPED_BUNDLE)]) == 2
    assert "add --bundle" in capsys.readouterr().err


def test_rows_of_another_data_set_are_refused(old: Path, tmp_path: Path, capsys) -> None:
    lines = old.read_text().splitlines()
    moved = tmp_path / "moved.jsonl"
    moved.write_text("\n".join([lines[0], lines[1].replace('"index": 0', '"index": 5', 1), ""]))
    assert main(derive(moved, tmp_path / "out.jsonl")) == 2
    assert "image 5: the image is not the one" in capsys.readouterr().err
    moved.write_text("\n".join([lines[0], lines[1].replace('"index": 0', '"index": 5000', 1), ""]))
    assert main(derive(moved, tmp_path / "out.jsonl")) == 2
    assert "pass its data set" in capsys.readouterr().err
