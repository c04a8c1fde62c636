from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config, config_from, load_run
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
