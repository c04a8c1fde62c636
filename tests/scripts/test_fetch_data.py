"""Fetching Fashion-MNIST: checked, from whichever source has it, and one line where none does."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path

import fetch_data
import pytest


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the place where the authors put the files; nothing is installed, and apt has nothing."""
    folder = tmp_path / "published"
    folder.mkdir()
    content = {}
    for name in fetch_data.CONTENT:
        (folder / name).write_bytes(gzip.compress(name.encode()))
        content[name] = hashlib.sha256(name.encode()).hexdigest()

    def nothing(part: Path) -> None:
        raise subprocess.CalledProcessError(100, ["apt-get"])

    monkeypatch.setattr(fetch_data, "CONTENT", content)
    monkeypatch.setattr(fetch_data, "ORIGIN", f"{folder.as_uri()}/")
    monkeypatch.setattr(fetch_data, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(fetch_data, "SOURCES", {"apt": nothing, "origin": fetch_data.from_origin})
    return folder


def said(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    status = fetch_data.main([str(folder), *options])
    (line,) = capsys.readouterr().out.splitlines()
    return status, line


def test_the_next_source_is_tried(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tmp_path / "data", capsys) == (0, f"data: {tmp_path / 'data' / 'fashion-mnist'}")
    assert fetch_data.whole(tmp_path / "data" / "fashion-mnist")
    shutil.rmtree(published)
    assert said(tmp_path / "data", capsys, "--required")[0] == 0


def test_what_is_installed_is_used(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.rename(tmp_path / "installed")
    assert said(tmp_path / "data", capsys)[0] == 0
    assert (tmp_path / "data" / "fashion-mnist").is_symlink()
    shutil.rmtree(tmp_path / "installed")
    assert said(tmp_path / "data", capsys, "--required")[0] == 1


def test_damaged_files_are_fetched_again(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(tmp_path / "data", capsys)
    damaged = next((tmp_path / "data" / "fashion-mnist").glob("t10k-images*"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert said(tmp_path / "data", capsys)[0] == 0
    assert fetch_data.whole(tmp_path / "data" / "fashion-mnist")


@pytest.mark.parametrize("fault", ["other", "missing"])
def test_where_none_has_it_one_line_says_why(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    file = next(published.iterdir())
    file.write_bytes(gzip.compress(b"other")) if fault == "other" else file.unlink()
    status, line = said(tmp_path / "data", capsys)
    assert status == 0
    assert "cannot be fetched (apt: " in line
    assert ("not those that were published" if fault == "other" else "No such file") in line
    assert not list((tmp_path / "data").glob("*"))
    assert said(tmp_path / "data", capsys, "--required")[0] == 1
