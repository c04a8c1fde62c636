"""TSV logs of the field: odd cells, columns and bytes."""

from __future__ import annotations

import math
from pathlib import Path

from fuzz.harness import attempt, fuzz
from fuzz.mutations import LEAVES, damaged
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.evaluation.field_log import COLUMNS, is_log, read_log
from dualsmooth.runtime.report import load_curves

LOG = (
    b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
    b"0\t3\t3\t1.234\t1\t0:00:02.345678\n16\t1\t-1\t0.0\t0\t1 day, 0:00:01\n"
)
CELLS = st.one_of(
    *[st.sampled_from([str(1 << 63), str(-(1 << 64)), "-5:00:00", " , 0:1", "nan", "inf"])] * 4,
    st.integers(-2, 9).map(str),
    st.floats().map(str),
    LEAVES.map(str),
    st.text(max_size=6),
    st.sampled_from(
        ["0:00:01", " , 0:1", "1 day, 0:00:01.5", "x, 1", "١", "1_0", "1e5", "inf", "nan", "9" * 400, "9" * 5000]
    ),
)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    names = list(COLUMNS)
    for _ in range(draw(st.integers(0, 1))):
        names[draw(st.integers(0, 5))] = draw(st.sampled_from([*COLUMNS, "", "other"]))
    good = st.tuples(
        st.integers(0, 10**6),
        st.integers(0, 9),
        st.integers(-1, 9),
        st.floats(0, 4),
        st.integers(0, 1),
        st.just("0:00:01"),
    )
    rows = [[str(cell) for cell in draw(good)] for _ in range(draw(st.integers(0, 5)))]
    for row in rows:
        row[4] = str(int(row[1] == row[2]))
    for _ in range(draw(st.integers(0, 2))):
        if rows:
            row = rows[draw(st.integers(0, len(rows) - 1))]
            row[draw(st.integers(0, 5))] = draw(CELLS)
    return "\n".join(["\t".join(names), *("\t".join(row) for row in rows)]).encode("utf-8", "surrogatepass")


@fuzz("TSV logs", raw=st.one_of(damaged(lambda: [LOG], most=3), logs()))
def test_accepted_logs_are_numbers(raw: bytes, folder: Path) -> None:
    path = folder / "field.tsv"
    path.write_bytes(raw)
    assert isinstance(attempt(is_log, path), bool)
    rows = attempt(read_log, path)
    assert len({r.index for r in rows}) == len(rows) > 0
    for row in rows:
        assert math.isfinite(row.radius)
        assert row.seconds >= 0 or math.isnan(row.seconds)
        assert row.correct == (row.label == row.true_label) or not row.correct
    if is_log(path):
        columns = ds.read_results(path)
        assert columns["index"].tolist() == [r.index for r in rows]
        run = load_curves([path])[0]
        assert run.radii.shape == (len(rows),)
