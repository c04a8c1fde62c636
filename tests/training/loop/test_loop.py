from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import dualsmooth.training.loop.loop as loop
from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.loop.ema import Average
from dualsmooth.training.objectives.batch import with_noise
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint
from dualsmooth.training.run.history import append_history, read_history
from dualsmooth.training.stages.classifier import train_classifier


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


@pytest.mark.parametrize(
    ("survived", "changes"),
    [(0, {}), (1, {}), (2, {}), (0, {"ema": 0.9}), (1, {"ema": 0.9}), (1, {"optimizer": "muon"})],
)
def test_training_stopped_in_any_epoch_ends_as_if_it_was_not(
    survived: int,
    changes: dict[str, object],
    tiny: Config,
    data: TrainingData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved: list[int] = []

    def save_or_die(path: Path, checkpoint: Checkpoint) -> None:
        if len(saved) == survived:
            raise KeyboardInterrupt
        saved.append(checkpoint.epoch)
        save(path, checkpoint)

    save = loop.save_checkpoint
    tiny = changed(tiny, **changes)
    whole = train_classifier(tmp_path / "whole.pt", data, tiny, levels=tiny.sigmas).state_dict()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path / "part.pt", data, tiny, levels=tiny.sigmas)
    resumed = train_classifier(tmp_path / "part.pt", data, tiny, levels=tiny.sigmas).state_dict()
    assert saved == list(range(1, survived + 1))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    lines = [entry for entry in read_history(tmp_path / "history.jsonl") if entry["network"] == "part"]
    assert [entry["epoch"] for entry in lines] == [1, 2, 3]
    assert lines[0]["loss"] > 0
    assert lines[2]["lr"] < lines[1]["lr"] < tiny.classifier.lr


def changed(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, classifier=dataclasses.replace(config.classifier, **changes))  # type: ignore[arg-type]


def test_the_average_of_the_weights_is_the_network(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    averaged = changed(tiny, ema=0.5, epochs=1)
    network = train_classifier(tmp_path / "a.pt", data, averaged, levels=tiny.sigmas)
    plain = train_classifier(tmp_path / "p.pt", data, changed(tiny, epochs=1), levels=tiny.sigmas)
    kept = load_checkpoint(tmp_path / "a.pt")
    assert kept.average is not None
    assert torch.equal(kept.weights["head.weight"], plain.head.weight)  # averaging does not touch what is trained
    assert torch.equal(kept.average["head.weight"], network.head.weight)
    assert not torch.equal(network.head.weight, plain.head.weight)


def test_an_average_follows_its_definition() -> None:
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(layer.weight)
    average = Average(layer, 0.25)
    for step, (value, expected) in enumerate([(1.0, 0.9), (2.0, 0.9 * 2 / 11 + 2 * 9 / 11)]):
        torch.nn.init.constant_(layer.weight, value)
        average.update(layer, step)
        assert float(average.values["weight"]) == pytest.approx(expected)
    for _ in range(20):
        average.update(layer, 1000)
    assert float(average.values["weight"]) == pytest.approx(2.0)


def test_gradients_are_clipped_where_it_is_asked_for(
    tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: object) -> object:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train_classifier(tmp_path / "a.pt", data, changed(tiny, epochs=1), levels=tiny.sigmas)
    free, norms[:] = max(norms), []
    train_classifier(tmp_path / "b.pt", data, changed(tiny, epochs=1, clip_norm=0.1), levels=tiny.sigmas)
    assert free > 0.2
    assert max(norms) == pytest.approx(0.1, rel=1e-3)


def test_a_history_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*history\.jsonl: Is a directory"):
        append_history(tmp_path / "b.pt", 1, loss=2.0)


def test_history_keeps_other_networks_and_survives_damage(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"network": "a", "epoch": 1, "loss": 3}\n[1]\n{"network": "a", "ep')
    append_history(tmp_path / "b.pt", 1, loss=2.0)
    append_history(tmp_path / "a.pt", 2, loss=1.0)
    append_history(tmp_path / "b.pt", 1, loss=0.5)
    found = [(e["network"], e["epoch"], e["loss"]) for e in read_history(tmp_path / "history.jsonl")]
    assert found == [("a", 1, 3), ("a", 2, 1.0), ("b", 1, 0.5)]


def test_curves_for_tensorboard_are_written_on_request_and_not_twice(
    tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("torch.utils.tensorboard")
    config = changed(tiny, tensorboard=True)

    def die(path: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.epoch == 2:
            raise KeyboardInterrupt
        save(path, checkpoint)

    save = loop.save_checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path / "a.pt", data, config, levels=(0.5,))
    train_classifier(tmp_path / "a.pt", data, config, levels=(0.5,))
    read = events.EventAccumulator(str(tmp_path / "tensorboard" / "a")).Reload()
    history = read_history(tmp_path / "history.jsonl")
    assert [e.step for e in read.Scalars("loss")] == [5, 10, 15]
    assert [e.value for e in read.Scalars("loss")] == pytest.approx([entry["loss"] for entry in history], rel=1e-5)
    train_classifier(tmp_path / "b.pt", data, changed(tiny, epochs=1), levels=(0.5,))
    assert not (tmp_path / "tensorboard" / "b").exists()


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
    noisy = with_noise(images, torch.tensor([0.25, 1.0]).view(-1, 1, 1, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy.mean((1, 2, 3)), torch.tensor([0.2, 0.2]), atol=0.02, rtol=0)
    torch.testing.assert_close(noisy.std((1, 2, 3)), torch.tensor([0.25, 1.0]), atol=0, rtol=0.02)
