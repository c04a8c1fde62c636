"""The frame of the scripts: pages that are not written over by chance, measurements that go on where they were."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import frame
import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.runtime.engine.instruction_set import described

DOCS = Path(__file__).parents[2] / "docs"


def test_a_page_is_written_over_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    frame.add_page(parser, "--table")
    out = tmp_path / "page.md"
    frame.publish("first\n", frame.parsed(parser, ["--table", str(out)]).page)
    with pytest.raises(ds.InputError, match="add --force"):
        frame.parsed(parser, ["--table", str(out)])
    frame.publish("second\n", frame.parsed(parser, ["--table", str(out), "--force"]).page)
    assert out.read_text() == "second\n"
    frame.publish("third\n", frame.parsed(parser, []).page)
    assert capsys.readouterr().out == "first\n\nsecond\n\nthird\n\n"


@pytest.mark.parametrize("name", ["bench.md", "parity.md"])
def test_a_page_is_its_head_and_its_sections(name: str) -> None:
    page = (DOCS / name).read_text()
    assert frame.joined(page.partition("\n## ")[0], frame.sections(page)) == page


def test_measurements_go_on_after_a_row_that_was_cut_off(tmp_path: Path) -> None:
    path, settings = tmp_path / "new" / "rows.jsonl", {"count": 3, "alpha": 0.1}
    rows = frame.Measurements(path, "mode", settings)
    rows.add({"mode": "a", "found": 1})
    rows.add({"mode": "b", "found": {"x": 2}})
    whole = path.read_text()
    path.write_text(whole + '{"mode": "c", "found": {"x"')
    again = frame.Measurements(path, "mode", settings)
    assert again.rows == rows.rows
    assert "c" not in again
    again.add({"mode": "c", "found": 3})
    assert path.read_text() == whole + json.dumps({"mode": "c", "found": 3, "settings": settings}) + "\n"
    assert len(frame.Measurements(path, "mode", settings)) == 3
    with pytest.raises(ds.InputError, match="other settings"):
        frame.Measurements(path, "mode", {**settings, "count": 4})


def test_measurements_without_settings_are_rows_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    frame.Measurements(path, "network").add({"network": "n", "speed": 2.5})
    assert path.read_text() == '{"network": "n", "speed": 2.5}\n'
    assert frame.Measurements(path, "network").rows["n"]["speed"] == 2.5


def test_the_machine_is_named_with_versions() -> None:
    said = frame.machine("numpy")
    assert said.startswith(f"{frame.cores()} cores of an {described()}, ")
    assert said.endswith(f"; numpy {np.__version__}")


def test_a_part_of_a_page_takes_its_place_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("old head\n\n## second\n\nkept\n\n## gone\n\nnot of this page\n")
    frame.publish_part("# head\n", {"first": "new"}, ["first", "second", "third"], page)
    assert page.read_text() == "# head\n\n## first\n\nnew\n\n## second\n\nkept\n"
    assert capsys.readouterr().out.startswith("# head")


def test_a_script_ends_with_a_line_and_not_with_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("mine")
    script = DOCS.parent / "scripts" / "groups_table.py"
    ended = subprocess.run(
        [sys.executable, script, "--page", tmp_path / "page.md"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("groups_table.py: ")
    assert ended.stderr.count("\n") == 1
