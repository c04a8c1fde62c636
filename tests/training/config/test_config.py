from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import ClassifierConfig, Config, EstimatorConfig, config_from
from dualsmooth.training.config import difference, read_toml
from dualsmooth.training.objectives import OBJECTIVES, Objective, objective_class
from dualsmooth.training.objectives.consistency import Consistency
from dualsmooth.training.objectives.smoothadv import SmoothAdv


def test_toml_round_trip() -> None:
    config = Config(dataset='npz:/tmp/a "b"\\c é.npz', data_dir=None, sigmas=(0.12, 0.25), seed=3,
                    estimator=EstimatorConfig(temperature=1e-7, from_classifier=False))  # fmt: skip
    assert config_from(tomllib.loads(config.to_toml()), "test") == config


@pytest.mark.parametrize(
    "objective",
    [
        *(objective_class(name)() for name in OBJECTIVES),
        Consistency(weight=3.0),
        SmoothAdv(attack="ddn", relative=True),
    ],
)
def test_objectives_survive_toml(objective: Objective) -> None:
    config = Config("d", classifier=ClassifierConfig(objective=objective, ema=0.99))
    assert config_from(tomllib.loads(config.to_toml()), "test") == config


def test_an_objective_may_be_given_by_name() -> None:
    config = config_from({"dataset": "d", "classifier": {"objective": "smoothadv"}}, "test")
    assert config.classifier.objective == SmoothAdv()
    assert "kind = " in str(difference(config, Config("d")))


def test_sigma_e_defaults_to_the_largest_level() -> None:
    assert Config("d", sigmas=(0.5, 2.0)).sigma_e == 2.0
    assert Config("d", sigmas=(0.5, 2.0), sigma_e=1.5).sigma_e == 1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no dataset"),
        ({"dataset": "d", "epochs": 3}, "epochs is unknown"),
        ({"dataset": "d", "classifier": {"lr_": 1}}, "classifier.lr_ is unknown"),
        ({"dataset": "d", "classifier": {"lr": "fast"}}, "classifier.lr is 'fast'; expected a finite number"),
        ({"dataset": "d", "classifier": {"lr": float("nan")}}, "a finite number"),
        ({"dataset": "d", "classifier": {"epochs": 2.5}}, "expected int"),
        ({"dataset": "d", "classifier": {"epochs": True}}, "expected int"),
        ({"dataset": "d", "classifier": 3}, "classifier is 3"),
        ({"dataset": "d", "sigmas": [0.5, 0.25]}, "ascending"),
        ({"dataset": "d", "sigmas": []}, "ascending"),
        ({"dataset": "d", "sigmas": 0.5}, "a list of numbers"),
        ({"dataset": "d", "labels": {"alpha": 1}}, "0 < alpha < 1"),
        ({"dataset": "d", "labels": {"votes": 0}}, "at least 1"),
        ({"dataset": "d", "estimator": {"temperature": 0}}, "positive"),
        ({"dataset": "d", "estimator": {"width": 0.5}}, "the two networks differ"),
        ({"dataset": "d", "seed": -1}, "from 0"),
        ({"dataset": "d", "classifier": {"ema": 1}}, "a decay from 0"),
        ({"dataset": "d", "estimator": {"clip_norm": -1}}, "a number from 0"),
        ({"dataset": "d", "classifier": {"depth": 0}}, "a positive factor"),
        ({"dataset": "d", "classifier": {"objective": "magic"}}, "expected one of gaussian, consistency, smoothadv"),
        ({"dataset": "d", "classifier": {"objective": {"kind": 3}}}, "expected one of gaussian"),
        ({"dataset": "d", "classifier": {"objective": {"weight": 3}}}, "classifier.objective.weight is unknown"),
        ({"dataset": "d", "classifier": {"objective": {"kind": "consistency", "copies": 1}}}, "at least 2"),
        ({"dataset": "d", "classifier": {"objective": {"kind": "smoothadv", "attack": "fgsm"}}}, "pgd or ddn"),
        ({"dataset": "d", "classifier": {"objective": {"kind": "smoothadv", "epsilon": 0}}}, "a positive length"),
        (
            {"dataset": "d", "classifier": {"objective": {"kind": "reweighted", "after": 2}}},
            "after is 2.0; expected a sh",
        ),
        ({"dataset": "d", "classifier": {"objective": {"kind": "catrs", "after": 0}}}, "above 0 and below 1"),
        (
            {"dataset": "d", "classifier": {"objective": {"kind": "macer", "beta": 0}}},
            "beta is 0.0; expected a positive",
        ),
        ({"dataset": "d", "classifier": {"objective": {"kind": "smoothmix", "step": 0}}}, "units of the noise level"),
        ({"dataset": "d", "classifier": {"autocast": "fp16"}}, "autocast is 'fp16'; expected auto, bf16 or off"),
        ({"dataset": "d", "estimator": {"optimizer": "sgd"}}, "estimator.optimizer is 'sgd'; expected adamw or muon"),
        ({"dataset": "d", "classifier": {"autocast": 3}}, "classifier.autocast is 3; expected str"),
        ({"dataset": "d", "metrics": {"votes": 0}}, "metrics.votes is 0; expected at least 1"),
        ({"dataset": "d", "finetune": {"everywhere": 1.5}}, "everywhere is 1.5; expected a share"),
    ],
)
def test_bad_values_are_refused_with_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        config_from(values, "test")
    assert "\n" not in str(caught.value)


def test_given_experts_leave_no_features_for_an_estimator_to_start_from() -> None:
    """Its width is then its own, whatever the classifier that nobody trains is said to be."""
    assert Config("d", experts=("0.25=a.onnx",), estimator=EstimatorConfig(width=0.5)).estimator.width == 0.5
    with pytest.raises(InputError, match="the two networks differ"):
        Config("d", estimator=EstimatorConfig(width=0.5))


def test_difference_names_the_key_and_ignores_where_the_data_lie() -> None:
    config = Config("d")
    assert difference(config, dataclasses.replace(config, data_dir="/elsewhere")) is None
    found = difference(config, dataclasses.replace(config, seed=1))
    assert found is not None
    assert "seed" in found


def test_a_toml_file_that_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(InputError, match="is not TOML"):
        read_toml(tmp_path / "bad.toml")


def test_texts_that_json_leaves_and_toml_does_not_know() -> None:
    config = Config("npz:a\x7fb\u2028😀")
    assert config_from(tomllib.loads(config.to_toml()), "test") == config


@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "a\ud800"},
        {"seed": 1 << 70},
        {"seed": 1 << 20_000},
        {"sigma_e": 10**400},
        {"experts": ["inf=a.onnx"]},
    ],
    ids=["half a character", "65 bits", "20,000 bits", "beyond floats", "infinite level"],
)
def test_values_that_toml_cannot_hold(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        config_from({"dataset": "d", **values}, "test")


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "9" * 5000])
def test_toml_that_no_reader_takes(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match="is not TOML"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(("said", "kept"), [(True, "bf16"), (False, "off"), ("bf16", "bf16"), ("auto", "auto")])
def test_autocast_may_be_said_as_of_old(said: object, kept: str) -> None:
    config = config_from({"dataset": "d", "classifier": {"autocast": said}}, "test")
    assert config.classifier.autocast == kept
    assert config_from(tomllib.loads(config.to_toml()), "test") == config


@pytest.mark.parametrize("section", ["classifier", "estimator", "labels", "finetune", "metrics"])
def test_sections_check_themselves(section: str) -> None:
    """A section that cannot be used is refused where it is made, not where a run is put together."""
    kind = type(getattr(Config("d"), section))
    wrong = {"labels": {"alpha": 2.0}, "metrics": {"images": 0}}.get(section, {"lr": 0.0})
    with pytest.raises(InputError, match=f"{section}."):
        kind(**wrong)


def test_the_settings_of_a_run_before_this_version_are_read() -> None:
    old = "dataset = 'd'\n[classifier]\nautocast = false\n[classifier.objective]\nkind = 'gaussian'\n"
    assert config_from(tomllib.loads(old), "run").classifier.autocast == "off"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_every_committed_configuration_is_good(path: Path) -> None:
    config_from(read_toml(path), str(path))
