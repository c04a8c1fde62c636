"""The field's logs: read as they stand, written without saying more than was certified; columns for pandas."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.field_log import is_log, read_log, write_log
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.report import load_curves
from dualsmooth.runtime.statistics.accuracy import certified_accuracy

# As `certify.py` of Cohen et al. 2019 prints it: "{}\\t{}\\t{}\\t{:.3}\\t{}\\t{}" and str(timedelta).
LOG = """idx\tlabel\tpredict\tradius\tcorrect\ttime
0\t3\t3\t0.871\t1\t0:00:12.204518
20\t7\t-1\t0.0\t0\t0:00:11.998120
40\t8\t0\t1.21\t0\t0:00:12.010203
60\t0\t0\t0.25\t1\t0:00:12
80\t6\t6\t0.0\t1\t1 day, 0:00:01
100\t1\t1\t9.5e-05\t1\t0:01:00.5
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "cohen.tsv").write_text(LOG)
    return tmp_path / "cohen.tsv"


def test_a_log_gives_the_accuracies_that_its_own_rows_imply(log) -> None:
    table = np.array([[float(line.split("\t")[3]), float(line.split("\t")[4])] for line in LOG.splitlines()[1:]])
    (run,) = load_curves([log])
    for r in (0.0, 1e-5, 0.25, 0.251, 0.5, 0.871, 1.0, 2.0):
        assert certified_accuracy(run.radii, [r])[0] == np.mean((table[:, 0] >= r) & (table[:, 1] == 1))


def test_times_and_abstentions(log) -> None:
    rows = read_log(log)
    assert [row.seconds for row in rows] == [12.204518, 11.99812, 12.010203, 12.0, 86401.0, 60.5]
    assert [row.label for row in rows] == [3, None, 0, 0, 6, 1]


def test_columns_by_name_with_more_or_without_time(tmp_path) -> None:
    (tmp_path / "other.tsv").write_text("idx\tpredict\tlabel\tradius\tsigma\tcorrect\n5\t2\t2\t0.5\t0.25\t1\n")
    (row,) = read_log(tmp_path / "other.tsv")
    assert (row.index, row.true_label, row.label, row.radius, row.correct) == (5, 2, 2, 0.5, True)
    assert np.isnan(row.seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idx\tlabel\n0\t1\n", "no column predict"),
        (LOG.replace("0.871", "much"), "line 2"),
        (LOG.replace("0.871", "nan"), "line 2: radius is nan"),
        (LOG.replace("0.871\t1", "0.871\t0"), "line 2: correct is 0"),
        (LOG.replace("0.871", "-1.0"), "line 2: radius is -1.0"),
        (LOG.replace("3\t3", "cat\tcat"), "line 2: 'cat' is no integer"),
        (LOG.replace("3\t3", "3\t3.5"), "line 2: '3.5' is no integer"),
        (LOG.replace("3\t3\t", "3\t\t"), "line 2: predict is empty"),
        (LOG.replace("0\t3", "0\t9\t3", 1), "line 2: 7 cells where the header has 6"),
        (LOG.replace("0\t3", "-2\t3", 1), "line 2: a number has more than 64 bits, or idx is negative"),
        (LOG.replace("radius", "rho"), "no column radius"),
        (LOG.partition("\n")[2], "neither results of `dualsmooth evaluate` nor a log"),
        ("name,age\nx,3\n", "neither results of `dualsmooth evaluate` nor a log"),
        ("PK\x03\x04junk", "neither results of `dualsmooth evaluate` nor a log"),
        ("[1, 2]\n", "neither results of `dualsmooth evaluate` nor a log"),
        (LOG.replace("7\t-1\t0.0\t0", "7\t-1\t0.0\t1"), "line 3: correct is 1"),
        (LOG.replace("20\t", "0\t", 1), "line 3: image 0 occurs twice"),
        (LOG.splitlines()[0] + "\n", "no rows"),
        (LOG + "120\t3\n", "line 8"),
    ],
)
def test_damaged_logs_are_refused_with_their_line(text, message, tmp_path, capsys) -> None:
    (tmp_path / "bad.tsv").write_text(text)
    assert main(["report", str(tmp_path / "bad.tsv")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


ROWS = [line.split("\t") for line in LOG.splitlines()]


def table(
    separator: str = "\t",
    columns: str = "idx label predict radius correct time",
    rows: list[list[str]] = ROWS,
) -> str:
    """The log with other columns, or in another order; those that it has not are filled with 7."""
    wanted = columns.split()
    place = {name.lower(): number for number, name in enumerate(rows[0])}
    cells = [[row[place[name.lower()]] if name.lower() in place else "7" for name in wanted] for row in rows[1:]]
    return "\n".join(separator.join(row) for row in [wanted, *cells]) + "\n"


def changed(column: int, change: Callable[[int, list[str]], str]) -> str:
    """The log with the cells of one column replaced, by the row's number and cells."""
    rows = [[*row[:column], change(number, row), *row[column + 1 :]] for number, row in enumerate(ROWS[1:])]
    return table(rows=[ROWS[0], *rows])


RIGHT = [row[1] == row[2] for row in ROWS[1:]]
QUOTED = table(",").replace("1 day, 0:00:01", '"1 day, 0:00:01"')
FORMS = {
    "running count (Carlini et al.)": changed(4, lambda i, _: str(sum(RIGHT[: i + 1]))),
    "running count that stays at one": "\n".join(changed(4, lambda i, _: str(sum(RIGHT[: i + 1]))).splitlines()[:3]),
    "running accuracy": changed(4, lambda i, _: f"{sum(RIGHT[: i + 1]) / (i + 1):.3f}"),
    "true and false": changed(4, lambda i, _: str(RIGHT[i])),
    "no correct": table(columns="idx label predict radius time"),
    "sigma between (data-dependent smoothing)": table(columns="idx label predict radius correct sigma time"),
    "good before correct": table(columns="idx label predict radius good correct time"),
    "other order": table(columns="time radius predict correct label idx"),
    "upper case": table(columns="IDX Label PREDICT Radius Correct TIME"),
    "other names": table().replace("idx\tlabel\tpredict", "index\ttrue_label\tprediction", 1),
    "bom": "\ufeff" + LOG,
    "crlf": LOG.replace("\n", "\r\n"),
    "old mac": LOG.replace("\n", "\r"),
    "commas": table(","),
    "commas and quotes": QUOTED,
    "commas and spaces": table(", "),
    "commas, index of pandas": "".join(f"{i - 1 if i else ''},{line}\n" for i, line in enumerate(QUOTED.splitlines())),
    "tabs, index of pandas": "".join(f"{i - 1 if i else ''}\t{line}\n" for i, line in enumerate(LOG.splitlines())),
    "semicolons, decimal commas": table(";").replace("0.871", "0,871").replace("1.21", "1,21").replace("0.25", "0,25"),
    "bars": table(" | "),
    "spaces": table("   "),
    "everything quoted": "\n".join(",".join(f'"{cell}"' for cell in row) for row in ROWS),
    "trailing tabs": LOG.replace("\n", "\t\n").replace("time\t", "time"),
    "comments": "# sigma 0.25\n\n" + LOG.replace("\n20", "\n# half\n20"),
    "header of savetxt": "# " + LOG,
    "arguments before": "Namespace(sigma=0.25, N=100000)\n" + LOG,
    "headers within": LOG.replace("\n40", f"\n{LOG.splitlines()[0]}\n40"),
    "floats": changed(2, lambda _, row: f"{row[2]}.0"),
    "all floats": LOG.replace("0\t3\t3\t", "0.0\t3.00\t3.\t"),
    "predict none": changed(2, lambda _, row: row[2].replace("-1", "None")),
    "predict abstain": changed(2, lambda _, row: row[2].replace("-1", "ABSTAIN")),
    "predict nan, and its radius": LOG.replace("-1\t0.0", "nan\tnan"),
    "predict empty": LOG.replace("-1\t0.0", "\t"),
    "abstained radius -1": LOG.replace("-1\t0.0", "-1\t-1"),
    "tensors": changed(2, lambda _, row: f"tensor({row[2]}, device='cuda:0')"),
    "numpy numbers": changed(3, lambda _, row: f"np.float64({row[3]})"),
    "times in seconds": changed(5, lambda i, _: f"{i}.5s"),
    "no newline at the end": LOG.rstrip("\n"),
    "utf-16 (PowerShell)": LOG,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_log_of_any_form_says_the_same(form, log, tmp_path) -> None:
    path = tmp_path / "form.csv"
    path.write_bytes(FORMS[form].encode("utf-16" if form.startswith("utf-16") else "utf-8"))
    assert is_log(path)
    expected = [(r.index, r.true_label, r.label, r.radius, r.correct) for r in read_log(log)]
    found = [(r.index, r.true_label, r.label, max(0.0, r.radius), r.correct) for r in read_log(path)]
    assert found == expected[: len(found)]
    assert len(found) == (2 if "stays" in form else 6)


def test_an_empty_file_is_no_log_but_results_without_a_row(tmp_path, capsys) -> None:
    (tmp_path / "r.jsonl").write_text("\n")
    assert main(["report", str(tmp_path / "r.jsonl")]) == 2
    assert "holds no results" in capsys.readouterr().err


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    bundle = toys.write_bundle(
        tmp_path_factory.mktemp("tsv") / "b",
        sigmas=(0.25, 0.5),
        sigma_e=0.5,
        estimator_cuts=[0.5],
        classifier_cuts=[0.3, 0.4],
    )
    images = [toys.image(t, u) for t in (0.1, 0.34, 0.7, 0.9) for u in (0.1, 0.5, 0.9)]
    certificates = ds.load(bundle, threads=1).certify_many(images, budget=ds.Fixed(300), seed=1)
    return [Result(i, int(images[i][0, 0, 0] > 0.35), "toy", 1.5, c) for i, c in enumerate(certificates)]


def test_written_logs_round_down_and_keep_the_curve(results, tmp_path) -> None:
    write_log(results, tmp_path / "out.tsv")
    rows = read_log(tmp_path / "out.tsv")
    assert any(r.certificate.abstained for r in results)
    assert [row.label for row in rows] == [r.certificate.label for r in results]
    for row, result in zip(rows, results, strict=True):
        assert result.certificate.radius - 1e-3 < row.radius <= result.certificate.radius
        assert row.seconds == 1.5
    at = [0.0, 0.1, 0.25, 0.5, 1.0]
    (run,) = load_curves([tmp_path / "out.tsv"])
    assert np.array_equal(certified_accuracy(run.radii, at), certified_accuracy(certified_radii(results), at))


def test_results_read_as_columns(results, tmp_path, log) -> None:
    writer = ResultsWriter(tmp_path / "r.jsonl", {})
    for result in results:
        writer.append(result)
    writer.close()
    assert not is_log(tmp_path / "r.jsonl")
    columns = ds.read_results(tmp_path / "r.jsonl")
    assert {len(column) for column in columns.values()} == {len(results)}
    assert columns["radius"].tolist() == [r.certificate.radius for r in results]
    assert columns["correct"].tolist() == [r.certificate.label == r.true_label for r in results]
    assert (columns["label"] == -1).tolist() == [r.certificate.abstained for r in results]
    assert set(ds.read_results(log)) < set(columns)


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_columns_are_a_data_frame(results, tmp_path, log) -> None:
    import pandas

    frame = pandas.DataFrame(ds.read_results(log))
    assert frame[frame.correct & (frame.radius >= 0.25)]["index"].tolist() == [0, 60]
    assert frame.label.tolist() == [3, -1, 0, 0, 6, 1]


@pytest.mark.parametrize(
    "cell", [("0\t3\t3", f"{1 << 63}\t3\t3"), ("0:00:12.204518", " , 0:1"), ("0:00:12.204518", "-5:00:00")]
)
def test_odd_numbers_are_refused_with_their_line(tmp_path, cell) -> None:
    (tmp_path / "odd.tsv").write_text(LOG.replace(*cell, 1))
    with pytest.raises(ds.InputError, match="line 2"):
        ds.read_results(tmp_path / "odd.tsv")
