"""The command line on a small real bundle, and one clear line with exit status 2 for every bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import toys

from dualsmooth.cli import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.two_levels(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    PIL.Image.fromarray(np.array([[230, 20]], np.uint8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_certify_png_json_then_verify_and_replay(bundle, picture, tmp_path, capsys) -> None:
    assert main(["certify", str(bundle), str(picture), "--json", "--budget", "fixed:1000"]) == 0
    line = capsys.readouterr().out
    certificate = json.loads(line)
    assert certificate["label"] == 1
    assert certificate["radius"] > 0.1
    (tmp_path / "c.json").write_text(line)
    verify = ["verify", str(tmp_path / "c.json"), "--bundle", str(bundle), "--replay", str(picture)]
    assert main(verify) == 0
    assert "replayed votes are identical" in capsys.readouterr().out
    (tmp_path / "c.json").write_text(json.dumps(certificate, indent=2))
    assert main(verify) == 0
    assert capsys.readouterr().out.count("valid: radius") == 1
    certificate["radius"] += 0.01
    (tmp_path / "c.json").write_text(json.dumps(certificate))
    assert main(["verify", str(tmp_path / "c.json")]) == 2
    assert "radius is stated as" in capsys.readouterr().err


def verified(bundle: Path, path: Path, lines: list[str], *options: str) -> int:
    path.write_text("\n".join(lines))
    return main(["verify", str(path), "--bundle", str(bundle), *options])


def test_verify_strict_refuses_what_convinces_fewer_readers(bundle, picture, tmp_path, capsys) -> None:
    """A fixed seed, shared noise, noise used twice, no bundle; and it accepts what the defaults make."""
    certify = ["certify", str(bundle), str(picture), str(picture), "--json", "--budget", "fixed:200"]
    assert main(certify) == 0
    own = capsys.readouterr().out.splitlines()
    assert main([*certify, "--seed", "7"]) == 0
    fixed = capsys.readouterr().out.splitlines()
    shared = json.loads(own[0])
    shared["seed"]["shared"] = True
    file = tmp_path / "c.json"
    assert verified(bundle, file, own, "--strict", "--replay", str(picture), "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[0])
    assert result["strict"] is True
    assert result["notes"] == []
    for lines, message in (
        (fixed, "line 1: the seed was chosen by a person"),
        ([*own, fixed[1]], "line 3: the seed was chosen by a person"),
        ([json.dumps(shared)], "noise is shared"),
        ([own[0], own[1], own[0]], "line 3: its noise is that of line 1"),
    ):
        assert verified(bundle, file, lines) == 0
        assert ("note: the seed" in capsys.readouterr().out) == ("seed" in message)
        assert verified(bundle, file, lines, "--strict") == 2
        assert message in capsys.readouterr().err
    assert main(["verify", str(file), "--strict"]) == 2
    assert "add --bundle" in capsys.readouterr().err


def test_a_fixed_seed_shows_in_the_text(bundle, picture, capsys) -> None:
    assert main(["certify", str(bundle), str(picture), "--budget", "fixed:200", "--seed", "7"]) == 0
    assert "fixed seed" in capsys.readouterr().out
    assert main(["certify", str(bundle), str(picture), "--budget", "fixed:200"]) == 0
    assert "fixed seed" not in capsys.readouterr().out


def test_the_text_says_which_noise_was_taken(bundle, picture, tmp_path, capsys) -> None:
    """Pictures have 8 bits; this array has not."""
    np.save(tmp_path / "odd.npy", np.array([[[0.123, 0.5]]], np.float32))
    for command, budget in (("certify", ["--budget", "fixed:100"]), ("predict", ["-n", "200"])):
        assert main([command, str(bundle), str(picture), str(tmp_path / "odd.npy"), *budget]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert "table noise" in first
        assert "float noise" in second
        assert main([command, str(bundle), str(picture), "--noise", "float:philox", *budget]) == 0
        assert "float:philox noise" in capsys.readouterr().out


def test_certify_prints_one_sentence_per_image(bundle, picture, capsys) -> None:
    assert main(["certify", str(bundle), str(picture), str(picture), "--budget", "adaptive:1000:0.05"]) == 0
    assert capsys.readouterr().out.count("certified radius") == 2


def test_predict(bundle, picture, capsys) -> None:
    assert main(["predict", str(bundle), str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == 1


def write_npz(path: Path, count: int = 6) -> Path:
    x = np.random.default_rng(0).integers(0, 256, (count, 1, 2), np.uint8)
    np.savez(path, x=x, y=(x[:, 0, 0] > 90).astype(np.int64))
    return path


def test_evaluate_report_and_plan(bundle, tmp_path, capsys) -> None:
    data, out = write_npz(tmp_path / "d.npz"), tmp_path / "r.jsonl"
    arguments = ["evaluate", str(bundle), "--dataset", f"npz:{data}", "--out", str(out), "--budget", "fixed:500"]
    assert main([*arguments, "--all-levels"]) == 0
    rules = ["--rule", "single", "--rule", "oracle", "--rule", "paper", "--rule", "interval", "--rule", "multiscale"]
    assert main(["report", str(out), *rules, "--out", str(tmp_path / "r.html")]) == 0
    table = capsys.readouterr().out
    assert "single:0.25" in table
    assert "| oracle |" in table
    page = (tmp_path / "r.html").read_text()
    assert "Content-Security-Policy" in page
    assert "src=" not in page
    assert main(["report", str(out), "--alpha", "0.01", "--out", str(tmp_path / "r.png")]) == 0
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["plan", str(out), "--passes", "500,5000", "--json"]) == 0
    forecasts = json.loads(capsys.readouterr().out)["forecasts"]
    assert forecasts[1]["acr"] >= forecasts[0]["acr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["certify", "missing", "image.png"], "not a directory"),
        (["certify", "BUNDLE", "missing.png"], "does not exist"),
        (["certify", "BUNDLE", "wide.png"], "is 9 pixels wide and 5 high; expected 2 wide and 1 high"),
        (["certify", "BUNDLE", "text.png"], "cannot read"),
        (["certify", "BUNDLE", "nan.npy"], "NaN"),
        (["certify", "BUNDLE", "range.npy"], "ranges from"),
        (["certify", "BUNDLE", "double.npy"], "float64"),
        (["certify", "BUNDLE", "objects.npy"], "cannot read"),
        (["certify", "BUNDLE", "good.png", "--alpha", "2"], "alpha"),
        (["certify", "BUNDLE", "good.png", "--budget", "fixed:none"], "budget"),
        (["certify", "BUNDLE", "good.png", "--rule", "best"], "rule"),
        (["certify", "BUNDLE", "good.png", "--rule", "single:0.3"], "sigma"),
        (["certify", "BUNDLE", "good.png", "--route", "mean"], "route"),
        (["certify", "BUNDLE", "good.png", "--seed", "-1"], "seed"),
        (["certify", "BUNDLE", "good.png", "--provider", "npu"], "provider"),
        (["certify", "BUNDLE", "good.png", "--batch-size", "0"], "batch_size"),
        (["evaluate", "BUNDLE", "--dataset", "mnist", "--out", "o"], "unknown"),
        (["evaluate", "BUNDLE", "--dataset", "npz:gone.npz", "--out", "o"], "cannot read"),
        (["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "no/such/o"], "cannot write"),
        (["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--indices", "7"], "outside"),
        (["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--indices", "a"], "integers"),
        (
            ["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--indices", "1", "--skip", "2"],
            "--indices with",
        ),
        (
            ["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--ray-address", "auto"],
            "add --engine ray",
        ),
        (
            ["evaluate", "grpc://h:1", "--dataset", "npz:data.npz", "--out", "o", "--engine", "ray"],
            "ray with grpc://h:1",
        ),
        (
            ["evaluate", "grpc://h:1", "--dataset", "npz:data.npz", "--out", "o", "--threads", "2"],
            "--threads 2 with grpc",
        ),
        (["certify", "grpc://h:1", "good.png", "--provider", "cuda"], "--provider cuda with grpc://h:1"),
        (
            ["predict", "grpc://h:1", "good.png", "--provider-option", "arena=off"],
            "--provider-option arena=off with grpc",
        ),
        (["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--skip", "0"], "positive"),
        (["report", "gone.jsonl"], "cannot read"),
        (["report", "text.png"], "neither results of"),
        (["verify", "text.png"], "not JSON"),
        (["plan", "gone.jsonl"], "cannot read"),
        (
            ["evaluate", "BUNDLE", "--dataset", "npz:data.npz", "--out", "o", "--shard", "9" * 5000 + "/1"],
            "expected i/n",
        ),
        (["triton", "BUNDLE", "--out", "x" * 300], "File name too long"),
        (["certify", "BUNDLE", "good.png", "--threads", "999999"], "threads"),
        (["certify"], "required"),
        (["frobnicate"], "invalid choice"),
        (["train", "--dataset", "none", "--out", "run"], "none"),
        (["export", "no-run", "--out", "b"], "no-run"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, bundle, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    grey = np.zeros((1, 2), np.uint8)
    PIL.Image.fromarray(grey).save("good.png")
    PIL.Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save("wide.png")
    Path("text.png").write_text("not an image")
    np.save("nan.npy", np.full((1, 1, 2), np.nan, np.float32))
    np.save("range.npy", np.full((1, 1, 2), 3, np.float32))
    np.save("double.npy", np.zeros((1, 1, 2)))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    write_npz(Path("data.npz"))
    before = sorted(p.name for p in tmp_path.iterdir())
    try:
        status = main([str(bundle) if a == "BUNDLE" else a for a in arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capfd.readouterr()
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    assert message in err
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_without_onnxruntime_one_clear_line(bundle, picture) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        f"from dualsmooth.cli import main; sys.exit(main(['certify', {str(bundle)!r}, {str(picture)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "dualsmooth: onnxruntime is not installed; install one engine, e.g. pip install 'dualsmooth[cpu]'"
    )


def test_altered_file_is_refused(bundle, picture, tmp_path, capsys) -> None:
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "estimator.onnx").write_bytes((copy / "estimator.onnx").read_bytes() + b"\0")
    assert main(["certify", str(copy), str(picture)]) == 2
    assert "was altered or damaged" in capsys.readouterr().err


def test_a_file_name_need_not_be_text(bundle, tmp_path) -> None:
    command = [sys.executable, "-m", "dualsmooth", "triton", str(bundle), "--out", "\udcff"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\\udcff: classifier_0")


def test_what_a_refusal_quotes_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["plan", "results.jsonl", "\x1b[31m"], ["plan", "results.jsonl", "a\nb"], ["\x1b[31m"]):
        with pytest.raises(SystemExit) as stop:
            main(line)
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert "\x1b" not in said
        assert len(said.strip().splitlines()) == 1
