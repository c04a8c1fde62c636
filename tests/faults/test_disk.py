"""Real full disks, read-only folders, file-size limits, and a stdout or stderr that is full."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.test_commands import contents, rows

from dualsmooth.runtime.bundle.reading import read_bundle

EVALUATE = "evaluate {0}/bundle --dataset npz:{0}/d.npz --out {1}/o.jsonl --budget fixed:100 --seed 7 --threads 1"
EXPORT = (
    "export --estimator {0}/bundle/estimator.onnx --classifier {0}/bundle/classifier_0.onnx --sigmas 0.25,0.5 "
    "--classes 2 --out {1}/made"
)
DUALSMOOTH = [sys.executable, "-m", "dualsmooth"]
UNSHARE = ["unshare", "--mount", "--map-root-user"]


def run(text: str, source: Path, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*DUALSMOOTH, *text.format(source, folder).split()]
    return subprocess.run(command, text=True, timeout=300, **({"capture_output": True} | options))


def one_line(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("dualsmooth: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert why in done.stderr


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands make where nothing is in their way."""
    folder = tmp_path_factory.mktemp("whole")
    for text in (EVALUATE, EXPORT):
        assert run(text, source, folder).returncode == 0
    return folder


@pytest.fixture(autouse=True, scope="module")
def fixed_time() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


def on_own_disk(source: Path, folder: Path, text: str, first: str, then: str) -> list[subprocess.CompletedProcess[str]]:
    """Run a command on a tmpfs mounted with options `first`, and again after it is mounted again with `then`; the
    mount is this process's own and goes with it. What is there after each run is copied to `folder`/0 and /1."""
    try:
        probe = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if probe.returncode:
        pytest.skip(f"mounting is not allowed here: {probe.stderr.decode()[:80]}")
    disk = folder / "disk"
    disk.mkdir()
    inner = [*DUALSMOOTH, *text.format(source, disk).split()]
    script = f"""
import json, subprocess, shutil
mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", {str(disk)!r}], check=True)
for number, options in enumerate({[first, then]!r}):
    mount(("remount," if number else "") + options)
    done = subprocess.run({inner!r}, capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout, done.stderr]))
    shutil.copytree({str(disk)!r}, {str(folder)!r} + "/" + str(number))
"""
    done = subprocess.run(
        [*UNSHARE, "--propagation", "private", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess("", *json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_evaluate_on_a_disk_that_fills_up(source: Path, whole: Path, tmp_path: Path) -> None:
    full, free = on_own_disk(source, tmp_path, EVALUATE, "size=12k", "size=1m")
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].startswith("dualsmooth: cannot write")
    assert "Traceback" not in full.stderr
    wanted, kept = rows(whole / "o.jsonl"), rows(tmp_path / "0" / "o.jsonl")
    assert 0 < len(kept) < len(wanted)
    assert kept == wanted[: len(kept)]
    assert (tmp_path / "0" / "o.jsonl").read_bytes().endswith(b"\n")
    assert free.returncode == 0, free.stderr
    assert rows(tmp_path / "1" / "o.jsonl") == wanted


@pytest.mark.slow
def test_export_to_a_disk_that_fills_up(source: Path, whole: Path, tmp_path: Path) -> None:
    full, free = on_own_disk(source, tmp_path, EXPORT, "size=12k", "size=1m")
    one_line(full, "No space left on device")
    assert list((tmp_path / "0").iterdir()) == []
    assert free.returncode == 0, free.stderr
    assert contents(tmp_path / "1").keys() == {name for name in contents(whole) if name.startswith("made/")}
    assert read_bundle(tmp_path / "1" / "made").files == read_bundle(whole / "made").files


@pytest.mark.slow
def test_a_read_only_disk(source: Path, tmp_path: Path) -> None:
    refused, again = on_own_disk(source, tmp_path, EVALUATE, "size=1m,ro", "size=1m,rw")
    one_line(refused, "Read-only file system")
    assert list((tmp_path / "0").iterdir()) == []
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 3000])
def test_files_that_may_not_grow(source: Path, whole: Path, tmp_path: Path, limit: int) -> None:
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    done = run(EVALUATE, source, tmp_path, preexec_fn=limited)
    assert done.returncode == 2
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    text, wanted = (tmp_path / "o.jsonl").read_bytes(), rows(whole / "o.jsonl")
    assert len(text) <= limit
    assert text == b"" or text.endswith(b"\n")
    assert rows(tmp_path / "o.jsonl") == wanted[: len(rows(tmp_path / "o.jsonl"))]
    assert run(EVALUATE, source, tmp_path).returncode == 0
    assert rows(tmp_path / "o.jsonl") == wanted


@pytest.mark.slow
def test_no_bundle_where_files_may_not_grow(source: Path, tmp_path: Path) -> None:
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
    one_line(run(EXPORT, source, tmp_path, preexec_fn=limited), "File too large")
    assert list(tmp_path.iterdir()) == []


FULL = Path("/dev/full")


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("text", ["inspect {0}/bundle --json", "report {0}/0.jsonl", EVALUATE])
def test_a_full_stdout(source: Path, tmp_path: Path, text: str) -> None:
    with open(FULL, "w") as full:
        done = run(text, source, tmp_path, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dualsmooth: ")
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_stderr_does_not_stop_an_evaluation(source: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copy(source / "d.npz", tmp_path)
    with open(FULL, "w") as full:
        done = run(EVALUATE, source, tmp_path, capture_output=False, stdout=subprocess.DEVNULL, stderr=full)
        bad = run("inspect {0}/nothing", source, tmp_path, capture_output=False, stderr=full)
    assert rows(tmp_path / "o.jsonl") == rows(whole / "o.jsonl")
    assert (done.returncode, bad.returncode) == (0, 2)
