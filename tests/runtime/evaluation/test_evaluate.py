"""Evaluations append, resume after a kill with the same rows, and never mix configurations."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.evaluate import choose_indices, evaluate
from dualsmooth.runtime.evaluation.results import header_of, load_results, merge_results
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.statistics.accuracy import certified_accuracy


@pytest.fixture
def setting(tmp_path: Path):
    bundle = toys.write_bundle(
        tmp_path / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 2), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 0, 0] > 90).astype(np.int64))
    return bundle, tmp_path / "d.npz"


def run(setting, out: Path, **options):
    bundle, data = setting
    options = {"budget": ds.Fixed(200), "seed": 7, "indices": range(10)} | options
    return evaluate(ds.load(bundle), load_dataset(f"npz:{data}"), out, **options)


def lines_of(path: Path) -> list[str]:
    """The rows; an evaluation's file begins with a header."""
    return [line for line in path.read_text().splitlines() if header_of(line) is None]


def rows(path: Path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines_of(path)]


def test_resume_adds_only_what_is_missing(setting, tmp_path) -> None:
    run(setting, tmp_path / "whole.jsonl")
    run(setting, tmp_path / "parts.jsonl", indices=range(4))
    run(setting, tmp_path / "parts.jsonl")
    assert rows(tmp_path / "parts.jsonl") == rows(tmp_path / "whole.jsonl")


def test_a_torn_last_line_is_repaired(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out)
    whole = rows(out)
    out.write_bytes(out.read_bytes()[:-25])
    assert run(setting, out).repaired
    assert rows(out) == whole


def test_the_command_passes_the_noise_on(setting, tmp_path) -> None:
    bundle, data = setting
    out = tmp_path / "o.jsonl"
    command = ["evaluate", str(bundle), "--dataset", f"npz:{data}", "--out", str(out), "--budget", "fixed:100:10"]
    assert main([*command, "--max", "3", "--noise", "lattice:philox", "--shared-noise"]) == 0
    assert {r.certificate.seed.noise for r in load_results(out)} == {ds.Noise("lattice", "Philox", True)}
    assert main([*command, "--noise", "lattice:philox"]) == 2


def test_by_default_the_file_says_which_noise_was_taken(setting, tmp_path) -> None:
    """Data sets hold 8-bit images: the header, every row, and whoever goes on with the file."""
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=range(2), noise=None)
    run(setting, out, noise=ds.Noise("table"))
    assert header_of(out.read_text().splitlines()[0])["seed"]["noise"] == "table"
    assert {r.certificate.seed.noise for r in load_results(out)} == {ds.Noise("table")}
    run(setting, tmp_path / "f.jsonl", indices=range(2), noise=ds.Noise("float"))
    with pytest.raises(ds.InputError, match="noise float, not table"):
        run(setting, tmp_path / "f.jsonl", noise=None)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"budget": ds.Fixed(300)}, "budget"),
        ({"alpha": 0.01}, "alpha"),
        ({"rule": "paper"}, "rule"),
        ({"route": "mode"}, "route"),
        ({"seed": 8}, "seed"),
        ({"noise": ds.Noise("lattice")}, "noise"),
        ({"noise": ds.Noise("float", "Philox")}, "noise"),
        ({"noise": ds.Noise(shared=True)}, "noise"),
        ({"all_levels": True}, "levels"),
    ],
)
def test_two_configurations_are_not_mixed(setting, tmp_path, options, name) -> None:
    run(setting, tmp_path / "o.jsonl", indices=range(2))
    with pytest.raises(ds.InputError, match=f"holds results with {name}"):
        run(setting, tmp_path / "o.jsonl", **options)


@pytest.mark.parametrize("rule", ["interval", "paper", "single:0.5", "multiscale", "confidence:0.6"])
def test_levels_that_a_rule_needs_are_not_mixed_with_all_of_them(setting, tmp_path, rule) -> None:
    run(setting, tmp_path / "all.jsonl", rule=rule, all_levels=True)
    run(setting, tmp_path / "all.jsonl", rule=rule, all_levels=True, indices=range(12))
    with pytest.raises(ds.InputError, match=r"with levels all \(--all-levels\), not as needed"):
        run(setting, tmp_path / "all.jsonl", rule=rule, indices=range(20))
    run(setting, tmp_path / "few.jsonl", rule=rule)
    run(setting, tmp_path / "few.jsonl", rule=rule, indices=range(12))
    with pytest.raises(ds.InputError, match="results with levels"):
        merge_results([tmp_path / "all.jsonl", tmp_path / "few.jsonl"], tmp_path / "m.jsonl")


def test_reading_recomputes_and_refuses_an_altered_row(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out)
    assert [r.index for r in load_results(out)] == list(range(10))
    changed = json.loads(lines_of(out)[0])
    changed["certificate"]["radius"] = 9.0
    out.write_text(json.dumps(changed) + "\n")
    with pytest.raises(ds.InputError, match="line 1: radius is stated as"):
        load_results(out)


@pytest.mark.parametrize("noise", [ds.Noise(), ds.Noise(shared=True)], ids=str)
def test_what_is_drawn_again_after_a_kill_is_drawn_with_the_same_noise(setting, tmp_path, noise) -> None:
    """A run that is cut off at any place and goes on gives what it would have given: nothing can be rolled again."""
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    run(setting, whole, seed=None, noise=noise)
    text = whole.read_text().splitlines(keepends=True)
    assert header_of(text[0])["seed"]["fixed"] is False
    for keep in (1, 2, 7):
        cut.write_text("".join(text[:keep]))
        run(setting, cut, seed=None, noise=noise)
        assert rows(cut) == rows(whole)
    other = tmp_path / "other.jsonl"
    run(setting, other, seed=None, noise=noise)
    assert rows(other) != rows(whole)


def test_published_certificates_do_not_tell_the_seed_of_their_run(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out, seed=None)
    run_entropy = header_of(out.read_text().splitlines()[0])["seed"]["entropy"]
    own = [row["certificate"]["seed"]["entropy"] for row in rows(out)]
    assert len({*own, run_entropy}) == len(own) + 1


def test_a_file_that_was_begun_otherwise_is_refused(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=range(1))
    out.write_text(out.read_text().splitlines()[0] + "\n")
    for options in ({"seed": 8}, {"seed": None}, {"noise": ds.Noise("lattice")}):
        with pytest.raises(ds.InputError, match="was begun with"):
            run(setting, out, **options)
    run(setting, tmp_path / "free.jsonl", seed=None)
    merge_results([tmp_path / "free.jsonl"], tmp_path / "m.jsonl")
    with pytest.raises(ds.InputError, match="has no header"):
        run(setting, tmp_path / "m.jsonl", seed=None, indices=range(12))


def test_two_writers_of_one_file_are_refused(setting, tmp_path) -> None:
    run(setting, tmp_path / "o.jsonl", indices=range(2))
    writer = ResultsWriter(tmp_path / "o.jsonl", {})
    with pytest.raises(ds.InputError, match="another process"):
        run(setting, tmp_path / "o.jsonl")
    writer.close()
    run(setting, tmp_path / "o.jsonl")


def test_a_doubled_row_is_refused_everywhere(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=range(3))
    out.write_text(out.read_text() + lines_of(out)[1] + "\n")
    with pytest.raises(ds.InputError, match="image 1 twice"):
        load_results(out)
    with pytest.raises(ds.InputError, match="image 1 twice"):
        run(setting, out)
    assert merge_results([out], tmp_path / "m.jsonl") == (3, 1)
    assert [r.index for r in load_results(tmp_path / "m.jsonl")] == [0, 1, 2]


def test_indices_may_be_any_integers_each_counts_once(setting, tmp_path) -> None:
    """A file that holds an image twice could be neither read nor continued."""
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=[3, 1, 3])
    run(setting, out, indices=np.arange(4))
    assert [r.index for r in load_results(out)] == [3, 1, 0, 2]


def test_merging_two_true_labels_of_one_image_is_refused(setting, tmp_path) -> None:
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    run(setting, one, indices=range(1))
    row = json.loads(lines_of(one)[0])
    two.write_text(json.dumps(row | {"true_label": 1 - row["true_label"]}) + "\n")
    with pytest.raises(ds.InputError, match="image 0 has another true label in"):
        merge_results([one, two], tmp_path / "m.jsonl")


def test_shards_are_a_partition_and_merge_to_the_whole(setting, tmp_path) -> None:
    run(setting, tmp_path / "whole.jsonl")
    parts = [tmp_path / f"part{i}.jsonl" for i in (1, 2, 3)]
    for i, part in enumerate(parts, 1):
        run(setting, part, indices=choose_indices(40, most=10, shard=(i, 3)))
    assert merge_results(reversed(parts), tmp_path / "merged.jsonl") == (10, 0)
    assert rows(tmp_path / "merged.jsonl") == rows(tmp_path / "whole.jsonl")


def test_choosing_indices() -> None:
    assert choose_indices(10, skip=4) == [0, 4, 8]
    assert choose_indices(10, indices=[5, 2, 5]) == [5, 2]
    for n in (1, 2, 3, 7, 12):
        parts = [choose_indices(10, skip=1, shard=(i, n)) for i in range(1, n + 1)]
        assert sorted(i for part in parts for i in part) == list(range(10))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for shard in ((0, 3), (4, 3)):
        with pytest.raises(ds.InputError, match="--shard"):
            choose_indices(10, shard=shard)


def test_merging_other_configurations_altered_or_torn_rows_is_refused(setting, tmp_path) -> None:
    one, two, out = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "m.jsonl"
    run(setting, one, indices=range(2))
    run(setting, two, indices=range(2, 4), alpha=0.01)
    with pytest.raises(ds.InputError, match="results with alpha"):
        merge_results([one, two], out)
    two.write_bytes(one.read_bytes()[:-9])
    with pytest.raises(ds.InputError, match="line 3 is torn"):
        merge_results([one, two], out)
    two.write_text(one.read_text().replace('"class_radius": 0', '"class_radius": 9', 1))
    with pytest.raises(ds.InputError, match="stated as"):
        merge_results([two], out)
    run(setting, tmp_path / "3.jsonl", indices=range(2), seed=None)
    run(setting, tmp_path / "4.jsonl", indices=range(2), seed=None)
    with pytest.raises(ds.InputError, match="another certificate"):
        merge_results([tmp_path / "3.jsonl", tmp_path / "4.jsonl"], out)
    assert not out.exists()


def test_decisions_agree_with_the_full_run_at_fewer_passes(setting, tmp_path) -> None:
    """Other votes, since the budget is part of the noise's key; decisions differ on images at the edge at most."""
    at = (0.0, 0.1, 0.2)
    run(setting, tmp_path / "full.jsonl", indices=range(40), budget=ds.Fixed(20_000))
    run(setting, tmp_path / "at.jsonl", indices=range(40), budget=ds.AtRadii(at, 20_000))
    full, few = load_results(tmp_path / "full.jsonl"), load_results(tmp_path / "at.jsonl")
    gap = certified_accuracy(certified_radii(few), at) - certified_accuracy(certified_radii(full), at)
    assert np.abs(gap).max() <= 4.01 / 40
    assert 10 * sum(r.certificate.passes for r in few) < sum(r.certificate.passes for r in full)


def test_the_command_says_how_far_it_is(setting, tmp_path, capsys) -> None:
    bundle, data = setting
    out = tmp_path / "o.jsonl"
    command = ["evaluate", str(bundle), "--dataset", f"npz:{data}", "--out", str(out), "--seed", "1"]
    assert main([*command, "--max", "4", "--at-radii", "0.1,0.5"]) == 0
    shown = capsys.readouterr()
    assert "results in" in shown.out
    assert re.search(r"4/4 images \(100%\), .*took 0:\d\d, certified \d+\.\d % at 0\.1, \d+\.\d % at 0\.5\n", shown.err)
    assert "\r" not in shown.err
    out.write_bytes(out.read_bytes()[:-5])
    assert main([*command, "--max", "6", "--shard", "1/2", "--at-radii", "0.5,0.1"]) == 0
    assert "torn last line was cut off" in capsys.readouterr().err
    assert [r.index for r in load_results(out)] == [0, 1, 2, 4]
    assert {str(r.certificate.terms.budget) for r in load_results(out)} == {"at-radii:0.1,0.5:100000:200"}
    assert main([*command, "--at-radii", "0.1", "--budget", "fixed:100"]) == 2
    assert main([*command, "--at-radii", "0.1", "--all-levels"]) == 2
    assert main([*command, "--shard", "3"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.slow
def test_kill_9_at_20_random_moments_loses_and_doubles_nothing(setting, tmp_path) -> None:
    bundle, data = setting
    options = ["--dataset", f"npz:{data}", "--budget", "fixed:20000", "--seed", "3", "--threads", "1"]
    command = [sys.executable, "-m", "dualsmooth", "evaluate", str(bundle), *options]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    row, rng = len(whole.read_bytes()) / 40, np.random.default_rng(5)
    for moment in np.sort(rng.uniform(0, 40 * row, 20)):
        process = subprocess.Popen([*command, "--out", str(killed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        size = killed.stat().st_size if killed.exists() else 0
        while process.poll() is None and (not killed.exists() or killed.stat().st_size <= max(size, moment)):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if rng.random() < 0.5:  # as if the power had gone in the middle of a write
            with open(killed, "r+b") as file:
                file.truncate(max(0, killed.stat().st_size - int(rng.integers(1, row))))
    subprocess.run([*command, "--out", str(killed)], check=True, capture_output=True)
    assert rows(killed) == rows(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1 << 63},
        {"index": [1]},
        {"index": 0.5},
        {"true_label": "x"},
        {"seconds": 1e300},
        {"seconds": -1},
        {"note": 1},
    ],
    ids=str,
)
def test_rows_that_no_evaluation_writes_are_refused(setting, tmp_path, change) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=range(1))
    row = json.loads(lines_of(out)[0])
    out.write_text(json.dumps(row | change) + "\n")
    with pytest.raises(ds.InputError, match="line 1"):
        load_results(out)
    if change.keys() & {"index", "true_label"}:
        with pytest.raises(ds.InputError, match="line 1 is not a result"):
            run(setting, out)


def test_a_row_without_its_label_is_not_resumed(setting, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    run(setting, out, indices=range(1))
    row = json.loads(lines_of(out)[0])
    del row["true_label"]
    out.write_text(json.dumps(row) + "\n")
    with pytest.raises(ds.InputError, match="line 1 is not a result"):
        run(setting, out)


NAMES = ("class 1", "class 0")


def test_classes_are_matched_by_name_in_any_order(setting, tmp_path, capsys) -> None:
    """The same images, their classes listed the other way round: the same results, and a page that says so."""
    bundle, data = setting
    with np.load(data) as arrays:
        np.savez(tmp_path / "turned.npz", x=arrays["x"], y=1 - arrays["y"], classes=np.array(NAMES))
    options = ["--budget", "fixed:100:20", "--seed", "7", "--max", "6"]
    for name in ("d", "turned"):
        command = ["evaluate", str(bundle), "--dataset", f"npz:{tmp_path / name}.npz", "--out", str(tmp_path / name)]
        assert main([*command, *options]) == 0
    one, two = ([(r.true_label, r.certificate.label) for r in load_results(tmp_path / n)] for n in ("d", "turned"))
    assert one == two
    page = tmp_path / "page.html"
    shown = ["--dataset", f"npz:{tmp_path / 'turned.npz'}", "--out", str(page)]
    assert main(["report", str(tmp_path / "turned"), *shown]) == 0
    assert '"classes":["class 0","class 1"]' in page.read_text()
    assert main(["report", str(tmp_path / "turned"), *shown]) == 2
    assert "page.html exists; choose another --out, or add --force" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "turned"), *shown, "--force"]) == 0


def test_nothing_is_written_before_the_data_set_fits(setting, tmp_path, capsys) -> None:
    bundle, data = setting
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    cases = [
        ({"x": x, "y": y, "classes": np.array(["cat", "dog"])}, "that the bundle has not: 'cat', 'dog'"),
        ({"x": x, "y": y + 1}, "labels from 1 to 2 for 2 classes of the bundle"),
        ({"x": x, "y": y - 1}, "labels from -1 to 0"),
        (
            {"x": x.repeat(2, axis=2), "y": y},
            "images of 1 channel, 1 pixels high and 4 wide; the bundle takes 1 channel",
        ),
        ({"x": x[..., None].repeat(3, axis=3), "y": y}, "images of 3 channels, 1 pixels high and 2 wide"),
    ]
    for arrays, message in cases:
        np.savez(tmp_path / "wrong.npz", **arrays)
        command = ["evaluate", str(bundle), "--dataset", f"npz:{tmp_path / 'wrong.npz'}", "--budget", "fixed:100"]
        assert main([*command, "--out", str(tmp_path / "o.jsonl")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "o.jsonl").exists()
    np.savez(tmp_path / "wrong.npz", **cases[0][0])
    assert main([*command, "--out", str(tmp_path / "o.jsonl"), "--max", "2", "--classes", "class 1,class 0"]) == 0
    assert [r.true_label for r in load_results(tmp_path / "o.jsonl")] == (1 - y[:2]).tolist()


def test_rows_of_other_true_labels_are_not_gone_on_with(setting, tmp_path) -> None:
    _, data = setting
    run(setting, tmp_path / "o.jsonl", indices=range(3))
    with np.load(data) as arrays:
        np.savez(data, x=arrays["x"], y=1 - arrays["y"])
    with pytest.raises(ds.InputError, match="holds image 0 with true label"):
        run(setting, tmp_path / "o.jsonl")


def test_a_file_that_got_no_row_keeps_the_seed_of_its_run(setting, tmp_path, monkeypatch) -> None:
    """Images were being sampled: they must not get other noise because the run was stopped. Another budget may
    follow."""
    out = tmp_path / "o.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("dualsmooth.runtime.evaluation.evaluate.Local.certify", lambda *_: iter([1 / 0 for _ in "x"]))
        with pytest.raises(ZeroDivisionError):
            run(setting, out, seed=None)
    (header,) = out.read_text().splitlines()
    run(setting, out, seed=None, budget=ds.Fixed(300))
    assert out.read_text().splitlines()[0] == header
    assert len(load_results(out)) == 10


def test_merging_never_overwrites_without_force(setting, tmp_path, capsys) -> None:
    one, out = tmp_path / "1.jsonl", tmp_path / "m.jsonl"
    run(setting, one, indices=range(2))
    out.write_text("precious")
    for target in (out, one, tmp_path):
        before = {path: path.read_bytes() for path in (one, out)}
        assert main(["merge", str(one), "--out", str(target)]) == 2
        assert f"{target} exists; choose another --out, or add --force" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in (one, out)} == before
    assert main(["merge", str(one), "--out", str(out), "--force"]) == 0
    assert len(load_results(out)) == 2
    assert main(["merge", str(one), "--out", str(one), "--force"]) == 0
    assert len(load_results(one)) == 2
    assert main(["merge", str(one), "--out", str(tmp_path), "--force"]) == 2
    assert "is no file that can be written over" in capsys.readouterr().err


def test_a_rule_that_may_ask_for_all_levels_goes_on_with_either(setting, tmp_path) -> None:
    """Nobody can tell from its votes whether `--all-levels` was said."""
    out = tmp_path / "o.jsonl"
    for count, every in ((4, False), (8, True), (12, False)):
        run(setting, out, rule="fallback:0.6", all_levels=every, indices=range(count))
    assert [r.index for r in load_results(out)] == list(range(12))
