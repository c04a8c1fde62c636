"""Lines on runs that went wrong in known ways, and silence on those that did not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.training import Config, EstimatorConfig, train
from dualsmooth.training.stages.verdicts import on_experts, on_labels, on_routes

CONFIG = Config("d")
HALVES = np.arange(100) % 2


def routes(*median: float) -> dict[str, object]:
    return {"images": 200, "routes": {"median": list(median), "mode": [1, 0, 0]}}


def radii(*best: int, nowhere: int = 0) -> np.ndarray:
    """As many images as said with the largest radius at each level, and as many without any."""
    rows = [np.eye(len(best))[level] for level, count in enumerate(best) for _ in range(count)]
    return np.array([*rows, *np.zeros((nowhere, len(best)))])


@pytest.mark.parametrize(("median", "collapsed"), [((0.95, 0.05, 0), True), ((0.94, 0.06, 0), False)])
def test_one_level_of_95_in_100_is_a_collapse(median: Sequence[float], collapsed: bool) -> None:
    lines = on_routes(routes(*median), CONFIG)
    assert len(lines) == collapsed
    assert not collapsed or ("95% of 200 held-out images go to sigma = 0.25" in lines[0] and "\n" not in lines[0])


def test_the_advice_is_for_what_was_set() -> None:
    with_consistency = on_routes(routes(0, 0, 1), CONFIG)[0]
    assert "estimator.consistency = 0" in with_consistency
    assert "raise estimator.worth" in with_consistency
    without = EstimatorConfig(consistency=0, eta=0, balance=0)
    lowest = on_routes(routes(1, 0, 0), dataclasses.replace(CONFIG, estimator=without))[0]
    assert "consistency" not in lowest
    assert "estimator.balance = 0.5" in lowest
    assert "lower estimator.worth" in lowest


def test_one_sided_labels_are_named_and_images_certified_nowhere_do_not_count() -> None:
    assert on_labels(radii(3, 94, 3), CONFIG) == []
    (line,) = on_labels(radii(0, 57, 3, nowhere=40), CONFIG)
    assert "95% of the certified images have their largest radius at sigma = 0.5" in line
    (line,) = on_labels(radii(10, 15, 15, nowhere=60), CONFIG)
    assert "60% of 100 images are certified at no level" in line
    assert len(on_labels(radii(0, 0, 0, nowhere=9), CONFIG)) == 1


def test_one_level_alone_is_no_collapse() -> None:
    config = Config("d", sigmas=(0.5,))
    assert on_routes({"images": 9, "routes": {"median": [1.0]}}, config) == on_labels(radii(9), config) == []


def test_experts_at_chance_are_named_by_level() -> None:
    """Naming one of two equal classes is right on half; the error of 100 such draws is 5 points."""
    (line,) = on_experts([0.9, 0.61, 0.59], HALVES, CONFIG)
    assert (
        "at sigma = 1 is not surely better than chance: 59% of single passes on 100 held-out images are right" in line
    )
    skewed = np.r_[np.zeros(90, int), np.ones(10, int)]
    assert len(on_experts([0.9, 0.9, 0.99], skewed, CONFIG)) == 2
    given = Config("d", experts=("0.5=a.onnx",))
    assert "--experts-mean" in on_experts([0.1], HALVES, given)[0]


def test_every_setting_that_is_advised_exists() -> None:
    text = " ".join(
        [
            *on_experts([0, 0, 0], HALVES, CONFIG),
            *on_labels(radii(0, 9, 0), CONFIG),
            *on_labels(radii(0, 0, 0, nowhere=9), CONFIG),
        ]
        + [line for median in ((1, 0, 0), (0, 0, 1)) for line in on_routes(routes(*median), CONFIG)]
    )
    keys = set(re.findall(r"(?:classifier|labels|estimator)\.\w+", text))
    assert len(keys) > 6
    for key in keys:
        attrgetter(key)(CONFIG)


def test_a_run_that_learns_nothing_says_so_before_its_labels(tiny: Config, tmp_path: Path) -> None:
    """With steps too small to change a bit, the network stays what it was drawn as."""
    said: list[str] = []
    still = dataclasses.replace(tiny.classifier, epochs=1, lr=1e-12, weight_decay=0.0)
    train(dataclasses.replace(tiny, classifier=still), tmp_path / "run", threads=1, say=said.append)
    chance = [i for i, line in enumerate(said) if line.startswith("careful: the classifier at sigma =")]
    assert len(chance) == 2
    assert max(chance) < next(i for i, line in enumerate(said) if line.startswith("labels:"))
