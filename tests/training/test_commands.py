from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config, config_from, load_run, read_toml
from dualsmooth.training.commands import _settings, add_arguments, run


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def config(*words: str) -> Config:
    return config_from(_settings(parse("--out", "run", *words)), "test")


def test_flags_override_the_file_and_set_reaches_every_key(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('dataset = "fashion-mnist"\nseed = 5\n[classifier]\nepochs = 9\nlr = 0.5\n')
    result = config("--config", str(file), "--seed", "6", "--sigmas", "0.1,0.2", "--classifier-epochs", "4",
                    "--set", "estimator.temperature=0.1", "--set", "estimator.from_classifier=false",
                    "--set", "estimator.model=small-cnn")  # fmt: skip
    assert (result.seed, result.sigmas, result.sigma_e) == (6, (0.1, 0.2), 0.2)
    assert (result.classifier.epochs, result.classifier.lr) == (4, 0.5)
    assert (result.estimator.temperature, result.estimator.from_classifier) == (0.1, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "d", "--sigmas", "a,b"], "--sigmas is 'a,b'"),
        (["--dataset", "d", "--set", "seed"], "has no value"),
        (["--dataset", "d", "--set", "seed.x=1"], "seed is"),
        (["--dataset", "d", "--set", "nothing=1"], "nothing is unknown"),
        (["--seed", "1"], "no dataset"),
    ],
)
def test_bad_arguments_are_refused_with_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        config(*words)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_trains(tiny: Config, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(tiny.to_toml())
    arguments = parse("--config", str(file), "--out", str(tmp_path / "run"), "--threads", "1")
    assert run(arguments) == 0
    assert load_run(tmp_path / "run").record["finished"]


@pytest.mark.slow
def test_64_images_are_enough(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All settings that do not fit are lowered but for those that were given; the same command finds the run again."""
    with np.load(tiny_npz) as arrays:
        np.savez(tmp_path / "few.npz", x=arrays["x"][:64], y=arrays["y"][:64], classes=arrays["classes"])
    words = ["--dataset", f"npz:{tmp_path / 'few.npz'}", "--out", str(tmp_path / "run"), "--quick", "--threads", "1"]
    words += ["--validation", "10", "--classifier-epochs", "9"]
    assert run(parse(*words, "--forecast")) == 0
    assert not (tmp_path / "run").exists()
    assert run(parse(*words)) == 0
    assert "labels.images is 54, not 1000, because there are only 64 training images" in capsys.readouterr().err
    config = config_from(read_toml(tmp_path / "run" / "config.toml"), "run")
    assert (config.validation, config.classifier.epochs, config.estimator.epochs) == (10, 9, 4)
    assert run(parse(*words)) == 0
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(InputError, match="too few to hold out 64"):
        run(parse(*words[:2], "--out", str(tmp_path / "other"), "--quick", "--validation", "64"))


def test_out_alone_goes_on_and_other_settings_are_refused(finished: Path) -> None:
    again = parse("--out", str(finished))
    assert run(again) == 0
    other = parse("--config", str(finished / "config.toml"), "--out", str(finished), "--seed", "1")
    with pytest.raises(InputError, match="another configuration"):
        run(other)


def test_unknown_datasets_are_refused(tmp_path: Path) -> None:
    arguments = parse("--dataset", "letters", "--out", str(tmp_path / "run"))
    with pytest.raises(InputError, match="letters"):
        run(arguments)


def test_the_command_is_listed_without_torch() -> None:
    code = """
import argparse, sys

class WithoutTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("no torch here", name=name)

sys.meta_path.insert(0, WithoutTorch())
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.commands import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
arguments = parser.parse_args(["--dataset", "d", "--out", "run"])
try:
    run(arguments)
except InputError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "training needs torch; pip install" in result.stdout
