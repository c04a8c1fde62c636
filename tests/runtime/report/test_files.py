"""What `dualsmooth report` writes beside the page: it says what the figures rest on, whatever the files are called."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.evaluation.writer import ResultsWriter

COUNT = 6
ODD = "_$x_{1$"
"""A name that mathematical text would choke on, and that a legend would leave out."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("files")
    bundle = toys.write_bundle(
        work / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    images = np.random.default_rng(3).integers(0, 256, (COUNT, 1, 1, 2), np.uint8)
    smoother = ds.load(bundle, threads=1)
    for name, n in (("one", 300), (ODD, 400)):
        writer = ResultsWriter(work / f"{name}.jsonl", {})
        for i, c in enumerate(smoother.certify_many(images, budget=ds.Fixed(n, n0=20), seed=1, all_levels=True)):
            writer.append(Result(i, int(images[i, 0, 0, 0] > 90), ODD, 0.25, c))
        writer.close()
    return work


def test_a_plot_says_how_many_images_and_passes_and_which_alpha(folder: Path) -> None:
    assert main(["report", str(folder / "one.jsonl"), "--alpha", "0.01", "--out", str(folder / "one.svg")]) == 0
    svg = (folder / "one.svg").read_text()
    assert f"images: {COUNT} of" in svg
    assert "passes: N = 300 a stage and level" in svg
    assert "alpha: 0.01 a certificate" in svg


def test_what_differs_between_runs_is_not_said_of_all(folder: Path) -> None:
    files = [str(folder / f"{name}.jsonl") for name in ("one", ODD)]
    assert main(["report", *files, "--out", str(folder / "two.svg")]) == 0
    svg = (folder / "two.svg").read_text()
    assert "N = " not in svg
    assert "alpha: 0.001 a certificate" in svg


def test_the_lines_about_a_file_name_no_rule_where_several_are_shown(folder: Path, capsys) -> None:
    rules = ["--rule", "single", "--rule", "oracle", "--rule", "interval"]
    assert main(["report", str(folder / "one.jsonl"), *rules]) == 0
    head = capsys.readouterr().out.partition("|")[0]
    assert "  passes       N = 300 a stage and level\n" in head
    assert "  rule " not in head
    assert main(["report", str(folder / "one.jsonl")]) == 0
    assert "  rule         interval, route by median\n" in capsys.readouterr().out


def test_what_a_log_does_not_say_is_not_said_of_it(folder: Path) -> None:
    one, log = folder / "one.jsonl", folder / "log.tsv"
    assert main(["report", str(one), "--out", str(log)]) == 0
    assert main(["report", str(one), str(log), "--out", str(folder / "log.svg")]) == 0
    assert "alpha" not in (folder / "log.svg").read_text()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".csv", ".tex", ".html"])
def test_odd_names_of_files_and_data_sets_are_plain_text(folder: Path, suffix: str) -> None:
    files = [str(folder / f"{name}.jsonl") for name in ("one", ODD)]
    out = folder / f"odd{suffix}"
    assert main(["report", *files, "--out", str(out)]) == 0
    if suffix == ".svg":
        assert f"<!--  {ODD}: interval -->" in out.read_text()
    if suffix == ".csv":
        assert {row["curve"] for row in csv.DictReader(io.StringIO(out.read_text()))} == {
            "one: interval",
            f"{ODD}: interval",
        }
