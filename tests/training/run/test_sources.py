"""A run that is put together from several others, and what does not fit together."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config, load_run, train
from dualsmooth.training.objectives import objective_class
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.run.history import read_history
from dualsmooth.training.run.sources import Source, gathered
from dualsmooth.training.stages.train import forecast_run

CLASSES, SHAPE = ("left", "middle", "right"), (1, 8, 8)


def with_experts(config: Config, **settings: object) -> Config:
    return dataclasses.replace(config, classifier=dataclasses.replace(config.classifier, experts=True, **settings))


@pytest.fixture(scope="module")
def wanted(tiny: Config) -> Config:
    return with_experts(tiny, epochs=2)


@pytest.fixture(scope="module")
def runs(wanted: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`low` and `high` have experts of other recipes and levels, `router` experts and an estimator for both levels."""
    folder = tmp_path_factory.mktemp("runs")
    low = dataclasses.replace(with_experts(wanted, epochs=1, lr=0.01), sigmas=(0.25,), sigma_e=0.25)
    high = dataclasses.replace(
        with_experts(wanted, epochs=3, objective=objective_class("consistency")()), sigmas=(0.35, 0.5)
    )
    router = dataclasses.replace(wanted, estimator=dataclasses.replace(wanted.estimator, epochs=1))
    for name, config in (("low", low), ("high", high), ("router", router)):
        train(config, folder / name, threads=1)
    return folder


def same(a: Path, b: Path) -> bool:
    left, right = load_checkpoint(a).network().state_dict(), load_checkpoint(b).network().state_dict()
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
def test_experts_of_two_runs_and_the_estimator_of_a_third_make_a_run(
    wanted: Config, runs: Path, tmp_path: Path
) -> None:
    """None is trained again, however it was trained; a run whose copying was interrupted copies again."""
    asked = [f"{runs / 'low'}=0.25", f"{runs / 'high'}=0.5", f"{runs / 'router'}=estimator"]
    train(wanted, tmp_path / "made", threads=1, reuse=asked)
    assert same(tmp_path / "made" / "classifier_0.25.pt", runs / "low" / "classifier_0.25.pt")
    assert same(tmp_path / "made" / "classifier_0.5.pt", runs / "high" / "classifier_0.5.pt")
    assert same(tmp_path / "made" / "estimator.pt", runs / "router" / "estimator.pt")
    assert not (tmp_path / "made" / "labels").exists()  # nobody needs them
    made = load_run(tmp_path / "made")
    assert [story["asked"] for story in made.record["borrowed"]] == asked
    assert [list(story["files"]) for story in made.record["borrowed"]] == [
        ["classifier_0.25.pt"], ["classifier_0.5.pt"], ["estimator.pt"],
    ]  # fmt: skip
    lines = {(line["network"], line["epoch"]) for line in read_history(tmp_path / "made" / "history.jsonl")}
    assert lines == {("classifier_0.25", 1), *(("classifier_0.5", n) for n in (1, 2, 3)), ("estimator", 1)}

    record = json.loads((tmp_path / "made" / "run.json").read_text())
    for name in ("classifier_0.5.pt", "estimator.pt", "metrics.json"):
        (tmp_path / "made" / name).unlink()
    interrupted = {**record, "finished": False, "copying": True}
    (tmp_path / "made" / "run.json").write_text(json.dumps(interrupted))
    train(wanted, tmp_path / "made", threads=1)
    assert load_run(tmp_path / "made").record["checkpoints"] == record["checkpoints"]


@pytest.mark.slow
def test_picked_experts_get_labels_and_an_estimator_of_their_own(wanted: Config, runs: Path, tmp_path: Path) -> None:
    """Those of `router` were made with other experts; its other expert is shared, and taken over."""
    train(wanted, tmp_path / "made", threads=1, reuse=[f"{runs / 'low'}=0.25", runs / "router"])
    stories = load_run(tmp_path / "made").record["borrowed"]
    assert [list(story["files"]) for story in stories] == [["classifier_0.25.pt"], ["classifier_0.5.pt"]]
    votes = [np.load(path / "labels" / "00000.npy") for path in (tmp_path / "made", runs / "router")]
    assert not np.array_equal(*votes)
    assert not same(tmp_path / "made" / "estimator.pt", runs / "router" / "estimator.pt")


@pytest.mark.parametrize(
    ("asked", "change", "message"),
    [
        (["low=0.5"], {}, "has experts at 0.25; expected 0.5 among them"),
        (["high=0.35"], {}, "was asked for its expert at 0.35; expected one of sigmas 0.25, 0.5"),
        (["low=estimator"], {}, "routes between 0.25 at sigma_e 0.25; expected 0.25, 0.5 at 0.5"),
        (["low=0.25"], {"seed": 8}, "has seed 7, so that its held-out images are others; expected 8"),
        (["low=0.25"], {"validation": 30}, "has validation 20, so that its held-out images are others"),
        (["low=0.25"], {"width": 0.5}, "is a small-cnn of width 0.25 and depth 1; expected a small-cnn of 0.5 and 1"),
        (["low=0.25"], {"experts": False}, "was asked for experts; expected classifier.experts = true"),
        (["router", "router=0.25"], {}, "router=0.25 gives nothing that the others do not give; leave it out"),
        (["nowhere=0.25"], {}, "nowhere is not a run directory"),
        (["low=0.25,x"], {}, "is not a run directory"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    asked: list[str], change: dict[str, object], message: str, wanted: Config, runs: Path
) -> None:
    network = {key: value for key, value in change.items() if key in ("width", "experts")}
    other = dataclasses.replace(wanted.estimator, from_classifier=False)
    config = dataclasses.replace(
        wanted, estimator=other, classifier=dataclasses.replace(wanted.classifier, **network),
        **{key: value for key, value in change.items() if key not in network},
    )  # fmt: skip
    if "router" in asked:
        config = load_config(runs / "router")
    with pytest.raises(InputError) as caught:
        gathered([Source.parsed(runs / name) for name in asked], config, CLASSES, SHAPE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def load_config(run: Path) -> Config:
    from dualsmooth.training.stages.train import saved_config

    config = saved_config(run)
    assert config is not None
    return config


def test_other_classes_and_images_are_refused(wanted: Config, runs: Path) -> None:
    source = [Source.parsed(f"{runs / 'low'}=0.25")]
    with pytest.raises(InputError, match="has the classes left, middle, right; expected right, middle, left, in this"):
        gathered(source, wanted, CLASSES[::-1], SHAPE)
    with pytest.raises(InputError, match=r"takes images \[1, 8, 8\]; expected \[3, 8, 8\]"):
        gathered(source, wanted, CLASSES, (3, 8, 8))


def test_an_expert_that_is_not_trained_to_its_end_is_refused(wanted: Config, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "low", tmp_path / "low")
    path = tmp_path / "low" / "classifier_0.25.pt"
    torch.save(torch.load(path, weights_only=True) | {"epochs": 9}, path)
    with pytest.raises(InputError, match="is not trained to its end; go on with --out"):
        gathered([Source.parsed(f"{tmp_path / 'low'}=0.25")], wanted, CLASSES, SHAPE)


def test_a_path_may_have_an_equals_sign(tmp_path: Path) -> None:
    assert Source.parsed("a=b/run").path == Path("a=b/run")
    assert Source.parsed("a=b/run=0.5") == Source("a=b/run=0.5", Path("a=b/run"), (0.5,))
    assert not Source.parsed(tmp_path).picked


def test_a_forecast_names_what_is_left_and_writes_nothing(wanted: Config, runs: Path, tmp_path: Path) -> None:
    """What other runs give takes no time; an estimator that is given needs no labels."""
    said: list[str] = []
    forecast_run(wanted, tmp_path / "new", threads=1, say=said.append)
    names = [line.split(":")[0].strip() for line in said[said.index("forecast, in minutes:seconds:") + 1 :]]
    assert names == ["classifier_0.25.pt", "classifier_0.5.pt", "labels", "estimator.pt", "metrics", "in total"]
    for reuse, left in (
        ([f"{runs / 'low'}=0.25"], ["classifier_0.5.pt", "labels", "estimator.pt", "metrics"]),
        ([f"{runs / 'router'}=estimator"], ["classifier_0.25.pt", "classifier_0.5.pt", "metrics"]),
    ):
        said.clear()
        forecast_run(wanted, tmp_path / "new", threads=1, reuse=reuse, say=said.append)
        assert [line.split(":")[0].strip() for line in said if line.startswith("  ")] == [*left, "in total"]
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_run_that_is_forecast_corrects_itself_and_ends_as_one_that_is_not(
    tiny: Config, finished: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    train(tiny, tmp_path / "run", threads=1, forecast=True, say=said.append)
    parts = [line.split(" took ")[0] for line in said if " took " in line]
    assert parts == ["classifier.pt", "labels", "estimator.pt", "metrics"]
    assert (tmp_path / "run" / "metrics.json").read_text() == (finished / "metrics.json").read_text()
    assert same(tmp_path / "run" / "estimator.pt", finished / "estimator.pt")
