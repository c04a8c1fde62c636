"""Strangers' graphs are opened in a child process first, which may die."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from toys import SHAPE, steps_onnx, write_bundle

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.engine import trial
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.trial import LEVELS, safe_level

BAD_CHILD = """
import json, os, signal, sys, time
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    with open({log!r}, "a") as log:
        log.write(job["level"] + "\\n")
    {act}
    print("null", flush=True)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a child for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    child = trial._Child()
    monkeypatch.setattr(trial, "_child", child)
    yield tmp_path / "cache"
    child.close()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "graph.onnx"
    path.write_bytes(steps_onnx(0, [0.5]))
    return path


def tried(path: Path) -> str:
    return safe_level(path, hashlib.sha256(path.read_bytes()).hexdigest(), SHAPE)


def behave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, act: str) -> Path:
    """A child that does `act` for each job, and the file in which it notes the levels that it was asked for."""
    script, log = tmp_path / "child.py", tmp_path / "levels.txt"
    script.write_text(BAD_CHILD.format(log=str(log), act=act))
    log.write_text("")
    monkeypatch.setattr(trial, "_CHILD", script)
    return log


def test_a_sound_graph_is_opened_once_and_remembered(
    graph: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tried(graph) == "all"
    monkeypatch.setattr(trial._Child, "ask", lambda *_: pytest.fail("tried again"))
    assert tried(graph) == "all"
    (own_cache / "dualsmooth" / "opened.txt").write_bytes(b"\xff\x00 not ours")
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        tried(graph)


KILLED = "os.kill(os.getpid(), signal.SIG{0})"


@pytest.mark.parametrize("name", ["SEGV", "ABRT", "FPE", "ILL", "BUS", "KILL"])
def test_a_crash_is_one_line(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    log = behave(monkeypatch, tmp_path, KILLED.format(name))
    with pytest.raises(ds.BundleError, match=rf"graph.onnx: ONNX Runtime \S+ (crashes|is killed) \(SIG{name}"):
        tried(graph)
    assert log.read_text().split() == list(LEVELS.values())


@pytest.mark.parametrize(("survives", "found"), [("ORT_ENABLE_EXTENDED", "extended"), ("ORT_DISABLE_ALL", "disabled")])
@pytest.mark.parametrize("act", [KILLED.format("SEGV"), "print('\"Type Error\"', flush=True); continue"])
def test_the_level_that_avoids_it_is_found(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: str, found: str, act: str
) -> None:
    log = behave(monkeypatch, tmp_path, f"if job['level'] != {survives!r}: {act}")
    assert tried(graph) == found == tried(graph)
    assert log.read_text().split() == list(LEVELS.values())[: list(LEVELS).index(found) + 1]


def test_what_fails_in_an_orderly_way_is_left_to_the_engine(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(monkeypatch, tmp_path, "print('\"not implemented\"', flush=True); continue")
    assert tried(graph) == "all"


def test_what_never_ends_is_one_line(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, tmp_path, "time.sleep(60)")
    monkeypatch.setattr(Cpu, "seconds", 0.2)
    with pytest.raises(ds.BundleError, match=r"does not come to an end within 0.2 s"):
        tried(graph)


def test_a_child_that_has_left_is_replaced(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = tmp_path / "left"
    behave(monkeypatch, tmp_path, f"if not os.path.exists({str(flag)!r}): open({str(flag)!r}, 'w'); sys.exit(0)")
    assert tried(graph) == "all"


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", "/opt/triton_python_backend_stub"])
def test_programs_that_embed_python_find_an_interpreter(
    graph: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert Path(str(trial._python())).name.startswith("python")
    assert tried(graph) == "all"


@pytest.mark.parametrize("python", [None, "/bin/false"])
def test_without_an_interpreter_nothing_is_tried(
    graph: Path, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    monkeypatch.setattr(trial, "_python", lambda: python)
    assert tried(graph) == "all"


def test_a_home_that_cannot_be_written_costs_only_time(graph: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    assert tried(graph) == "all" == tried(graph)


def test_the_bundle_that_ships_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial._Child, "ask", lambda *_: pytest.fail("tried"))
    ds.load(SHIPPED_BUNDLE)


def test_a_forked_process_starts_a_child_of_its_own(graph: Path) -> None:
    assert tried(graph) == "all"
    other = graph.with_name("other.onnx")
    other.write_bytes(steps_onnx(0, [0.25]))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if tried(other) == "all" else 1)
    assert os.waitpid(pid, 0)[1] == 0


def made(path: Path, **changes: object) -> Path:
    write_bundle(path, sigmas=(0.25,), sigma_e=0.25, estimator_cuts=[], classifier_cuts=[0.5])
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))
    return path


def test_loading_a_bundle_that_crashes_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    behave(monkeypatch, tmp_path, KILLED.format("SEGV"))
    with pytest.raises(ds.BundleError, match=r"b/estimator.onnx: ONNX Runtime \S+ crashes \(SIGSEGV\)"):
        ds.load(made(tmp_path / "b"))


def asked(log: Path) -> Sequence[str]:
    return sorted(set(log.read_text().split()))


def test_the_manifest_says_where_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = behave(monkeypatch, tmp_path, "")
    bundle = made(tmp_path / "b")
    levels = dict.fromkeys(json.loads((bundle / "manifest.json").read_text())["files"], "basic")
    smoother = ds.load(made(tmp_path / "c", optimisation=levels))
    assert smoother.bundle.optimisation == levels
    assert asked(log) == ["ORT_ENABLE_BASIC"]
    assert {smoother.engine.optimisation(name) for name in levels} == {"basic"}
    assert smoother.engine.name.endswith(" (graph optimisation basic)")
