from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.networks.network import Network
from dualsmooth.training.objectives import Objective
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.gaussian import Gaussian
from dualsmooth.training.stages.classifier import train_classifier

Seen = list[tuple[list[int], list[float]]]


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    """The first pixel of each image is its number, so that a loss can tell which images it sees."""
    data = load_training_data(tiny)
    images = data.images.copy()
    images[:, 0, 0, 0] = np.arange(len(images))
    return dataclasses.replace(data, images=images)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Which images and levels the objective is given, batch by batch."""
    record: Seen = []

    def loss(self: Objective, batch: Batch) -> torch.Tensor:
        record.append((batch.clean[:, 0, 0, 0].tolist(), batch.sigma.tolist()))
        return batch.network(batch.images).square().mean()

    monkeypatch.setattr(Gaussian, "loss", loss)
    return record


def short(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, classifier=dataclasses.replace(config.classifier, **changes))  # type: ignore[arg-type]


def test_only_the_rows_are_drawn_each_once_an_epoch(
    tiny: Config, data: TrainingData, tmp_path: Path, seen: Seen
) -> None:
    rows = np.arange(5, 69)
    train_classifier(tmp_path / "c.pt", data, tiny, levels=(0.5,), rows=rows)
    images = [i for batch, _ in seen for i in batch]
    assert sorted(images) == sorted([*rows.tolist()] * tiny.classifier.epochs)
    assert {s for _, levels in seen for s in levels} == {0.5}


def test_weights_are_the_chances_of_each_level(tiny: Config, data: TrainingData, tmp_path: Path, seen: Seen) -> None:
    rows = np.arange(90)
    weights = np.zeros((90, 3), np.float32)
    weights[:30] = [0, 2, 0]  # always the middle level
    weights[30:60] = [3, 0, 1]  # three times of four the first, else the last
    train_classifier(
        tmp_path / "c.pt", data, short(tiny, epochs=40, batch_size=60), levels=(0.25, 0.5, 1.0), rows=rows,
        weights=weights,
    )  # fmt: skip
    pairs = [pair for images, levels in seen for pair in zip(images, levels, strict=True)]
    assert {image for image, _ in pairs} == set(range(60))
    assert {level for image, level in pairs if image < 30} == {0.5}
    others = [level for image, level in pairs if image >= 30]
    assert set(others) == {0.25, 1.0}
    assert np.mean(np.array(others) == 0.25) == pytest.approx(0.75, abs=0.06)


def test_equal_weights_are_used_by_default(tiny: Config, data: TrainingData, tmp_path: Path, seen: Seen) -> None:
    train_classifier(tmp_path / "c.pt", data, short(tiny, epochs=10), levels=(0.25, 1.0))
    levels = np.array([level for _, batch in seen for level in batch])
    assert np.mean(levels == 0.25) == pytest.approx(0.5, abs=0.06)


def equal(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_keys_tell_classifiers_apart_and_nothing_else_does(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    once = short(tiny, epochs=1)

    def trained(name: str, *key: int) -> Network:
        return train_classifier(tmp_path / name, data, once, levels=(0.5,), key=key)

    networks = [trained("a.pt"), trained("b.pt", 0), trained("c.pt", 1), trained("d.pt", 0, 1), trained("e.pt", 1, 0)]
    assert not any(equal(a, b) for i, a in enumerate(networks) for b in networks[:i])
    assert equal(networks[2], trained("f.pt", 1))


def test_fine_tuning_starts_from_a_network_with_settings_of_its_own(
    tiny: Config, data: TrainingData, tmp_path: Path
) -> None:
    first = train_classifier(tmp_path / "a.pt", data, tiny, levels=(0.25, 0.5))
    before = {key: value.clone() for key, value in first.state_dict().items()}
    gentle = dataclasses.replace(tiny.classifier, epochs=1, lr=1e-9, weight_decay=0.0)
    tuned = train_classifier(tmp_path / "b.pt", data, tiny, levels=(0.25,), start=first, settings=gentle)
    for (name, parameter), old in zip(tuned.named_parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(parameter, old, atol=1e-6, rtol=0, msg=name)
    assert all(torch.equal(before[key], value) for key, value in first.state_dict().items())
    wider = dataclasses.replace(gentle, width=0.5)
    with pytest.raises(InputError, match="another shape"):
        train_classifier(tmp_path / "c.pt", data, tiny, levels=(0.25,), start=first, settings=wider)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ()}, "levels is"),
        ({"levels": (0.5, -1.0)}, "levels is"),
        ({"levels": (0.5,), "rows": np.array([], np.int64)}, "rows is"),
        ({"levels": (0.5,), "rows": np.array([160])}, "rows is"),
        ({"levels": (0.5,), "rows": np.array([0.5])}, "rows is"),
        ({"levels": (0.5,), "rows": np.array([1, 2]), "weights": np.ones((3, 1))}, "weights has shape"),
        ({"levels": (0.5,), "rows": np.array([1, 2]), "weights": np.array([[1.0], [-1.0]])}, "weights has shape"),
        ({"levels": (0.5,), "rows": np.array([1, 2]), "weights": np.zeros((2, 1))}, "all weights are 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tiny: Config, data: TrainingData, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train_classifier(tmp_path / "c.pt", data, tiny, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_seed_of_its_own_draws_the_classifier_anew_and_nothing_else(
    tiny: Config, data: TrainingData, tmp_path: Path, seen: Seen
) -> None:
    """Other first weights, order and noise; the same seed, given either way, is the same network; the held-out images
    stay, so that the members of an ensemble have all not seen them."""
    makes = {"plain": tiny, "drawn": short(tiny, seed=8), "whole": dataclasses.replace(tiny, seed=8)}
    weights, orders = {}, {}
    for name, config in makes.items():
        seen.clear()
        network = train_classifier(tmp_path / f"{name}.pt", data, config, levels=(0.5,))
        weights[name] = torch.cat([value.flatten() for value in network.state_dict().values()])
        orders[name] = [i for batch, _ in seen for i in batch]
    assert not torch.equal(weights["plain"], weights["drawn"])
    assert torch.equal(weights["drawn"], weights["whole"])
    assert orders["plain"] != orders["drawn"] == orders["whole"]
    held_out = [load_training_data(config).validation_labels for config in (tiny, makes["drawn"])]
    assert np.array_equal(*held_out)
