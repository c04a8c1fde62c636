"""Results files and logs of the field: torn lines, mixed configurations, doubled rows, odd bytes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import changed_text
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.evaluation.field_log import read_log, write_log
from dualsmooth.runtime.evaluation.results import Result, configuration_of, load_results, merge_results
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.report import load_curves


class Real:
    rows: list[dict[str, Any]]
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> None:
    path = toys.write_bundle(
        folder / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    smoother, Real.folder, rows = ds.load(path, threads=1), folder, []
    for budget in (ds.Fixed(100, n0=10), ds.AtRadius(0.1, 100, 10)):
        for index in range(4):
            made = smoother.certify(toys.image(0.2 * index, 0.3), budget=budget)
            rows.append(json.loads(Result(index, index % 2, "toys", 0.25, made).to_json()))
    Real.rows = rows


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Rows of one configuration or two; some damaged, doubled, torn, or joined by odd ends of lines."""
    lines = [json.dumps(row) for row in Real.rows[: draw(st.integers(0, 5))]]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines)))
        kind = draw(st.integers(0, 5))
        if kind <= 2:
            lines.insert(at, draw(changed_text(lambda: Real.rows)))
        elif kind == 3 and lines:
            lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
        elif kind == 4:
            lines.insert(at, draw(st.sampled_from(["", " ", "\0", "null", "[]", "{}", '{"index": 0}', "\x1c", "\x0c"])))
        elif at < len(lines):
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
    end = draw(st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\n\n", "\x85"]))
    text = end.join(lines) + (end if draw(st.integers(0, 4)) else "")
    return text.encode("utf-8", "surrogatepass")


def write(name: str, raw: bytes) -> Path:
    path = Real.folder / name
    path.write_bytes(raw)
    return path


@fuzz("results files", share=0.4, raw=files())
def test_accepted_results_are_whole(raw: bytes) -> None:
    path = write("r.jsonl", raw)
    rows = attempt(load_results, path)
    assert len({r.index for r in rows}) == len(rows) > 0
    text = "".join(r.to_json() + "\n" for r in rows)  # which read back are the same
    assert load_results(write("again.jsonl", text.encode())) == rows
    columns = attempt(ds.read_results, path)
    assert [r.index for r in rows] == columns["index"].tolist()
    assert all(np.isfinite(columns[name]).all() for name in ("radius", "seconds", "alpha"))
    write_log(rows, Real.folder / "log.tsv")
    assert len(read_log(Real.folder / "log.tsv")) == len(rows)
    for run, result in zip(load_curves([path])[0].radii, rows, strict=True):
        assert run == result.correct_radius
    attempt(load_curves, [path], rules=["oracle"], alpha=0.01)


@fuzz("results files", share=0.3, one=files(), two=files())
def test_merged_results_are_of_one_configuration(one: bytes, two: bytes) -> None:
    paths = [write("a.jsonl", one), write("b.jsonl", two)]
    out = Real.folder / "merged.jsonl"
    out.unlink(missing_ok=True)
    try:
        count, _ = attempt(merge_results, paths, out)
    finally:
        assert paths[0].read_bytes() == one
    rows = load_results(out)
    assert len(rows) == count
    assert len({json.dumps(configuration_of(json.loads(r.to_json()))) for r in rows}) == 1
    assert sorted({r.index for p in paths if p.read_bytes().strip() for r in _lenient(p)}) == [r.index for r in rows]


def _lenient(path: Path) -> list[Result]:
    """The rows of a file in which one may be there twice."""
    lines = [line for line in re.split("[\r\n]", path.read_bytes().decode()) if line.strip()]
    return [load_results(write("one.jsonl", line.encode()))[0] for line in lines]


@fuzz("results files", share=0.3, raw=files())
def test_resuming_loses_a_torn_line_and_nothing_else(raw: bytes) -> None:
    path = write("resume.jsonl", raw)
    configuration = configuration_of(Real.rows[0])
    try:
        writer = attempt(ResultsWriter, path, configuration)
    except BaseException:
        assert path.read_bytes() == raw  # refused, so untouched
        raise
    kept = path.read_bytes()
    try:
        assert raw.startswith(kept)
        assert b"\n" not in raw[len(kept) :]
        assert kept in (b"", raw) or kept.endswith(b"\n")
        assert len(writer.done) == len(writer.order) == len(writer.radii)
        assert all(type(index) is int for index in writer.order)
        assert all(math.isfinite(radius) for radius in writer.radii)
    finally:
        writer.close()


def test_the_real_rows_are_good() -> None:
    """Otherwise the targets above show nothing."""
    text = "".join(json.dumps(row) + "\n" for row in Real.rows[:4])
    assert len(load_results(write("good.jsonl", text.encode()))) == 4
