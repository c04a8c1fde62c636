"""A training that is tried out knows when its steps become dearer, whatever the objective."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dualsmooth.training import Config
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.loop.rehearsal import LEAST, Rehearsal
from dualsmooth.training.objectives import objective_class
from dualsmooth.training.stages.classifier import classifier_lesson
from dualsmooth.training.stages.estimator import estimator_lesson


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


def rehearsal(config: Config, data: TrainingData, **objective: object) -> Rehearsal:
    kind = str(objective.pop("kind"))
    settings = dataclasses.replace(config.classifier, epochs=10, objective=objective_class(kind)(**objective))
    spec, lesson = classifier_lesson(data, config, config.sigmas, settings, "cpu")
    return Rehearsal(spec, lesson, settings, "cpu")


def test_catrs_is_dearer_after_its_gaussian_epochs(tiny: Config, data: TrainingData) -> None:
    """docs/training.md: 1 pass, after `after` copies x (steps + 2), and once `votes` forward passes (at each level)."""
    found = rehearsal(tiny, data, kind="catrs", after=0.3, copies=4, steps=4, votes=7)
    assert found.phases() == [range(3), range(3, 10)]
    assert [found.passes(epoch) for epoch in (0, 2, 3, 9)] == [1, 1, 24, 24]
    assert found.reviews == [0, 0, 0, 2 * 7, 0, 0, 0, 0, 0, 0]


def test_reweighted_judges_once_and_votes_at_each_further_count(tiny: Config, data: TrainingData) -> None:
    found = rehearsal(tiny, data, kind="reweighted", after=0.4, every=0.3, judging=5, votes=8, steps=2, copies=1)
    assert found.phases() == [range(4), range(4, 10)]
    assert [found.passes(epoch) for epoch in (3, 4)] == [1, 3]
    assert found.reviews == [0, 0, 0, 0, 2 * 5, 0, 0, 2 * 8, 0, 0]


@pytest.mark.parametrize(("kind", "passes"), [("gaussian", 1), ("consistency", 2), ("macer", 16), ("smoothadv", 10)])
def test_others_cost_the_same_throughout(kind: str, passes: int, tiny: Config, data: TrainingData) -> None:
    found = rehearsal(tiny, data, kind=kind)
    assert found.phases() == [range(10)]
    assert found.passes(5) == passes


def test_steps_are_timed_by_the_clock_and_leave_random_numbers_alone(tiny: Config, data: TrainingData) -> None:
    """A clock that goes on by 1 whenever it is read: a step takes 1 by it, and so do all votes of a batch."""
    ticks = iter(range(10_000))
    before = torch.random.get_rng_state()
    spec, lesson = estimator_lesson(data, tiny, 50, "cpu")
    with torch.random.fork_rng():
        found = Rehearsal(spec, lesson, tiny.estimator, "cpu", clock=lambda: float(next(ticks)))
        assert found.step_times(1) == [1.0] * LEAST
        assert found.seconds_a_pass() == 1 / 128
    assert torch.equal(before, torch.random.get_rng_state())
