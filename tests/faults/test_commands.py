"""Every file-system operation of every command that writes is made to fail, and the process is ended at every one.

After each: what looks finished is whole, the user reads one line, and the same command again brings the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.injector import KINDS
from faults.nursery import Outcome, enumerate_faults

from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.evaluation.results import load_results

pytestmark = pytest.mark.slow
STATUS = {"kill": 137, "int": 130, "term": 143}
EVERY = dict.fromkeys(KINDS, 1)
Check = Callable[[Path, Path], bool]
"""(folder, folder of the undisturbed run): asserts that nothing partial looks finished; whether all is done."""


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def says_one_line(outcome: Outcome) -> None:
    """A traceback never; one line where the command failed."""
    lines = outcome.stderr.splitlines()
    spoken = [line for line in lines if line.startswith("dualsmooth: ")]
    assert "Traceback" not in outcome.stderr, f"{outcome}: {outcome.stderr}"
    assert spoken == lines[-1:] or outcome.status in (0, 137), f"{outcome}: {outcome.stderr}"


def check_all(trace: list[tuple[str, str]], whole: Path, outcomes: list[Outcome], check: Check) -> None:
    assert len(trace) > 4
    assert not [op for op, _ in trace if "unsynced" in op]
    assert check(whole, whole)
    for outcome in outcomes:
        done = check(outcome.after, whole)
        assert outcome.status == STATUS.get(outcome.kind, 2) or (outcome.status == 0 and done), str(outcome)
        says_one_line(outcome)
        if outcome.kind in ("full", "io", "term"):
            left = [p for p in outcome.after.rglob(".*") if p.name != ".lock"]
            # an interrupt may come just before the operation that cleans up, or that would have been cleaned up after
            assert not left or outcome.op[0] in ("unlink", "rmdir") or outcome.kind == "term", f"{outcome}: {left}"
        assert outcome.again == 0 or done, f"{outcome}, again: {outcome.again_stderr}"
        assert check(outcome.final, whole), f"{outcome}: run again, the result is another"


def rows(path: Path) -> list[dict[str, object]]:
    """All whole lines of a results file, less the seconds."""
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_evaluate(source: Path, tmp_path: Path) -> None:
    command = "evaluate bundle --dataset npz:d.npz --out o.jsonl --budget fixed:100 --seed 7 --max 4 --threads 1"

    def check(folder: Path, whole: Path) -> bool:
        found, wanted = rows(folder / "o.jsonl"), rows(whole / "o.jsonl")
        assert found == wanted[: len(found)]
        if len(found) == len(wanted):
            load_results(folder / "o.jsonl")
        return len(found) == len(wanted)

    trace, whole, outcomes = enumerate_faults(command.split(), source, tmp_path / "w", strides=EVERY)
    check_all(trace, whole, outcomes, check)
    for outcome in outcomes:
        if outcome.kind in ("full", "io"):  # the program was there to clear up
            text = (outcome.after / "o.jsonl").read_text() if (outcome.after / "o.jsonl").exists() else ""
            assert text == "" or text.endswith("\n"), str(outcome)


def old_or_new(*names: str) -> Check:
    """Each file is the old one of the source, or the whole new one; all are done when all are new."""

    def check(folder: Path, whole: Path) -> bool:
        states = []
        for name in names:
            found = (folder / name).read_bytes()
            assert found in (b"old\n", (whole / name).read_bytes()), name
            states.append(found != b"old\n")
        return all(states)

    return check


def test_merge(source: Path, tmp_path: Path) -> None:
    command = ["merge", "0.jsonl", "1.jsonl", "--out", "merged.jsonl", "--force"]
    check_all(*enumerate_faults(command, source, tmp_path / "w", strides=EVERY), old_or_new("merged.jsonl"))


def test_report(source: Path, tmp_path: Path) -> None:
    names = ("r.html", "r.csv")
    command = ["report", "0.jsonl", *(f"--out={name}" for name in names), "--force"]
    check_all(*enumerate_faults(command, source, tmp_path / "w", strides=EVERY), old_or_new(*names))


def appears_whole(name: str) -> Check:
    """A folder that is not there, or is there whole."""

    def check(folder: Path, whole: Path) -> bool:
        if not (folder / name).is_dir() or not any((folder / name).iterdir()):
            return False
        assert contents(folder / name) == contents(whole / name)
        return True

    return check


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def test_export(source: Path, tmp_path: Path) -> None:
    files = "--estimator bundle/estimator.onnx --classifier bundle/classifier_0.onnx"
    command = f"export {files} --sigmas 0.25,0.5 --classes 2 --out made"

    def check(folder: Path, whole: Path) -> bool:
        if done := appears_whole("made")(folder, whole):
            read_bundle(folder / "made")
        return done

    strides = EVERY | {"readonly": 3, "io": 2, "int": 3, "term": 3}
    check_all(*enumerate_faults(command.split(), source, tmp_path / "w", strides=strides), check)


def test_triton(source: Path, tmp_path: Path) -> None:
    command = ["triton", "bundle", "--out", "models", "--threads", "1"]
    strides = EVERY | {"full": 3, "readonly": 5, "io": 3, "int": 5, "term": 5}
    check_all(*enumerate_faults(command, source, tmp_path / "w", strides=strides), appears_whole("models"))
