"""The injector sees what it should: each operation, writes that a rename shows too early, and where to strike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CARELESS = """
import json, os, shutil, sys
from pathlib import Path
from faults.injector import watch
folder, kind, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(folder.parent / "elsewhere").write_text("x" * 1000)
injector = watch(folder, kind, at if at >= 0 else None)
try:
    (folder / "sub").mkdir()
    with open(folder / "sub" / "a.tmp", "w") as file:
        file.write("x" * 100)
    os.replace(folder / "sub" / "a.tmp", folder / "a")
    shutil.copyfile(folder.parent / "elsewhere", folder / "b")
    Path(folder / "b").unlink()
except (OSError, KeyboardInterrupt) as error:
    print(json.dumps([type(error).__name__, getattr(error, "strerror", "")]))
else:
    print(json.dumps(injector.trace))
"""


def careless(folder: Path, kind: str = "kill", at: int = -1) -> subprocess.CompletedProcess[str]:
    work = folder / f"work{at}{kind}"
    work.mkdir()
    command = [sys.executable, "-c", CARELESS, str(work), kind, str(at)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_every_operation_is_counted_and_an_unsynced_rename_is_seen(tmp_path: Path) -> None:
    assert json.loads(careless(tmp_path).stdout) == [
        ["mkdir", "sub"],
        ["open", "sub/a.tmp"],
        ["write", "sub/a.tmp"],
        ["rename of unsynced sub/a.tmp", "a"],
        ["open", "b"],
        ["write", "b"],
        ["write", "b"],  # copying ends with an empty write
        ["unlink", "b"],
    ]


@pytest.mark.parametrize(
    ("kind", "at", "why"),
    [
        ("full", 0, "No space left on device"),
        ("full", 2, "No space left on device"),
        ("readonly", 3, "Read-only file system"),
        ("io", 4, "Input/output error"),
        ("io", 7, "Input/output error"),
    ],
)
def test_the_operation_that_is_struck_fails(tmp_path: Path, kind: str, at: int, why: str) -> None:
    assert json.loads(careless(tmp_path, kind, at).stdout) == ["OSError", why]


def test_a_process_is_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    assert careless(tmp_path, "kill", 2).returncode == -9
    assert (tmp_path / "work2kill" / "sub" / "a.tmp").read_text() == "x" * 50
    assert not (tmp_path / "work2kill" / "a").exists()


def test_signals_come_before_the_operation(tmp_path: Path) -> None:
    assert json.loads(careless(tmp_path, "int", 3).stdout) == ["KeyboardInterrupt", ""]
    assert careless(tmp_path, "term", 3).returncode == -15
    assert not (tmp_path / "work3int" / "a").exists()
