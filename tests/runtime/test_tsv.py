"""The field's logs: read as they stand, written without saying more than was certified; columns for pandas."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.curves import certified_accuracy, certified_radii
from dualsmooth.runtime.report import load_runs
from dualsmooth.runtime.results import Result, ResultsWriter
from dualsmooth.runtime.tsv import is_log, read_log, write_log

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
    (run,) = load_runs([log])
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
        (LOG.replace("0.871\t1", "0.871\t2"), "line 2: correct is 2"),
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
    (run,) = load_runs([tmp_path / "out.tsv"])
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
