"""The configuration of a training run: TOML files, flags and --set. What is accepted is written and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzz.harness import attempt, fuzz
from fuzz.mutations import TEXTS, VALUES, at, changed, damaged, paths
from hypothesis import strategies as st

from dualsmooth.training.config import Config, config_from, difference, read_toml
from dualsmooth.training.objectives.smoothadv import SmoothAdv

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "configs" / "fashion-mnist.toml").read_bytes()
PLAIN: list[dict[str, Any]] = [
    read_toml(ROOT / "configs" / "fashion-mnist.toml"),
    {"dataset": "cifar10", "experts": ["0.25=a.onnx", "1.0=b.onnx"]},
    {
        "dataset": "npz:x",
        "classifier": {"objective": {"kind": "smoothadv", "attack": "ddn"}, "model": "denoised:small-cnn"},
        "estimator": {"from_classifier": False},
    },
]
ODD = st.sampled_from(
    [b"[" * 3000, b"x = 0x" + b"f" * 5000, b"x = " + b"9" * 5000, b"x = 1979-05-27", b"[a]\n[a]", b"a.b.c = {}"]
)


def same(config: Config, folder: Path) -> None:
    path = folder / "written.toml"
    path.write_text(config.to_toml(), "utf-8")
    again = config_from(read_toml(path), "again")
    assert again == config
    assert difference(again, config) is None


@fuzz("training configurations", values=st.one_of(changed(lambda: PLAIN), VALUES), share=0.6)
def test_values(values: Any, folder: Path) -> None:
    same(attempt(config_from, values if isinstance(values, dict) else {"dataset": values}, "values"), folder)


@fuzz("training configurations", raw=st.one_of(damaged(lambda: [TEXT]), ODD, st.binary(max_size=40)), share=0.2)
def test_files(raw: bytes, folder: Path) -> None:
    path = folder / "run.toml"
    path.write_bytes(raw)
    same(attempt(lambda: config_from(read_toml(path), "file")), folder)


KEYS = st.one_of(
    st.sampled_from([".".join(map(str, p)) for p in paths(PLAIN[0]) if not isinstance(at(PLAIN[0], p), list)]), TEXTS
)
VALUE = st.one_of(
    VALUES.map(repr),
    TEXTS,
    st.integers(-2, 9).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["9" * 5000, "[" * 3000, "0x" + "f" * 5000, "true", "'soft'", "{a = 1}", "1 # x", "'", '"\\ud800"']
    ),
)


@fuzz("training configurations", settings=st.lists(st.builds("{}={}".format, KEYS, VALUE), max_size=3), share=0.2)
def test_settings_of_the_command_line(settings: list[str], folder: Path) -> None:
    import argparse

    from dualsmooth.training import commands

    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    flags = [f"--set={text}" for text in settings]
    arguments = parser.parse_args(["--out", "run", "--dataset", "npz:x", *flags])
    same(attempt(lambda: config_from(commands._settings(arguments), "flags")), folder)


def test_the_samples_are_good(tmp_path: Path) -> None:
    """Otherwise the targets above show nothing."""
    made = [config_from(values, "sample") for values in PLAIN]
    assert isinstance(made[2].classifier.objective, SmoothAdv)
    for config in made:
        same(config, tmp_path)
