from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import dualsmooth.training.loop as loop
from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config
from dualsmooth.training.checkpoint import Checkpoint
from dualsmooth.training.classifier import train_classifier
from dualsmooth.training.data import TrainingData, load_training_data


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_training_stopped_in_any_epoch_ends_as_if_it_was_not(
    survived: int, tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save_or_die(path: Path, checkpoint: Checkpoint) -> None:
        if len(saved) == survived:
            raise KeyboardInterrupt
        saved.append(checkpoint.epoch)
        save(path, checkpoint)

    save = loop.save_checkpoint
    whole = train_classifier(tmp_path / "whole.pt", data, tiny, levels=tiny.sigmas).state_dict()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path / "part.pt", data, tiny, levels=tiny.sigmas)
    resumed = train_classifier(tmp_path / "part.pt", data, tiny, levels=tiny.sigmas).state_dict()
    assert saved == list(range(1, survived + 1))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_training_learns(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    longer = dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, epochs=12))
    network = train_classifier(tmp_path / "c.pt", data, longer, levels=longer.sigmas)
    images = torch.from_numpy(data.validation_images) / 255.0
    noisy = images + 0.25 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    right = network(noisy).argmax(1) == torch.from_numpy(data.validation_labels)
    assert right.float().mean() > 0.8


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    hot = dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, lr=1e30))
    with pytest.raises(InputError, match=r"lower classifier\.lr"):
        train_classifier(tmp_path / "c.pt", data, hot, levels=hot.sigmas)


def test_a_checkpoint_of_another_run_is_refused(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    train_classifier(tmp_path / "c.pt", data, tiny, levels=tiny.sigmas)
    longer = dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, epochs=12))
    with pytest.raises(InputError, match="another run"):
        train_classifier(tmp_path / "c.pt", data, longer, levels=longer.sigmas)


def test_noise_has_the_level_of_each_example() -> None:
    images = torch.full((2, 1, 200, 200), 51, dtype=torch.uint8)
    noisy = loop.add_noise(images, torch.tensor([0.25, 1.0]).view(-1, 1, 1, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy.mean((1, 2, 3)), torch.tensor([0.2, 0.2]), atol=0.02, rtol=0)
    torch.testing.assert_close(noisy.std((1, 2, 3)), torch.tensor([0.25, 1.0]), atol=0, rtol=0.02)
