"""The example with a folder of pictures: a row for each, and the certificates behind them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

import dualsmooth as ds
from dualsmooth.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "folder_to_csv.py"


@pytest.mark.slow
def test_each_picture_has_its_row_and_its_certificate(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out.csv"
    photos.mkdir()
    shown = {f"{index:02}.png": index for index in range(0, 40, 2)}  # more than are certified at a time
    for name, index in shown.items():
        PIL.Image.fromarray(ds.sample("fashion-mnist", index)[0]).save(photos / name)
    PIL.Image.new("RGB", (30, 20)).save(photos / "07.jpg")
    PIL.Image.new("L", (28, 28)).save(photos / "39.JPEG")
    (photos / "99 damaged.png").write_bytes((photos / "00.png").read_bytes()[:60])
    (photos / "notes.txt").write_text("no picture")

    run = [sys.executable, str(EXAMPLE), str(photos), str(out), "fashion-mnist", "300"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["file"] for row in rows] == sorted([*shown, "07.jpg", "39.JPEG", "99 damaged.png"])
    refused = {row["file"]: row["refused"] for row in rows if row["refused"]}
    assert set(refused) == {"07.jpg", "99 damaged.png"}
    assert "is 30 pixels wide and 20 high; expected 28 wide and 28 high" in refused["07.jpg"]
    assert not any(row[name] for row in rows if row["refused"] for name in ("class", "label", "radius", "passes"))

    kept = [row for row in rows if not row["refused"]]
    certificates = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    for row, certificate in zip(kept, certificates, strict=True):
        if row["file"] in shown:
            image = ds.sample("fashion-mnist", shown[row["file"]]).astype("float32") / 255
            assert certificate["artefact"]["image_sha256"] == sha256(image)
        assert row["label"] == ("" if certificate["label"] is None else str(certificate["label"]))
        assert float(row["radius"]) == certificate["radius"]
        assert int(row["passes"]) == certificate["passes"]
    assert {row["class"]: row["label"] for row in kept}["Trouser"] == "1"
    assert main(["verify", str(out.with_suffix(".jsonl")), "--bundle", "fashion-mnist", "--strict"]) == 0
    assert subprocess.run(run, capture_output=True, text=True, check=False).returncode != 0  # nothing is overwritten


def sha256(image: object) -> str:
    from dualsmooth.runtime.smoothing.artefact import image_sha256

    return image_sha256(image)  # type: ignore[arg-type]
