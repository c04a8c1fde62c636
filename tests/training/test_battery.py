"""What every objective and every network must pass, just by being in its table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from dualsmooth.export import to_onnx
from dualsmooth.export.checks.parity import TOLERANCE, check_parity
from dualsmooth.training import ClassifierConfig, Config
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.loop import loop
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.look import ImageLook
from dualsmooth.training.networks.models import KINDS, MODELS, WRAPPERS, build, initialise
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.networks.zoo import TIMM, TORCHVISION
from dualsmooth.training.objectives import OBJECTIVES, Objective, objective_class
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint
from dualsmooth.training.stages.classifier import train_classifier

CHEAP = {"votes": 8, "judging": 8, "copies": 2, "steps": 2, "threshold": 0.0}
EPOCHS = 4
LIBRARIES = (TORCHVISION, TIMM)
EVERY = pytest.mark.parametrize("name", OBJECTIVES)
OWN = [kind.example for kind in KINDS if kind not in LIBRARIES]
NETWORKS = pytest.mark.parametrize(
    "model",
    [
        *OWN,
        *(f"{name}:small-cnn" for name in WRAPPERS),
        *(pytest.param(kind.example, marks=pytest.mark.slow) for kind in LIBRARIES),
    ],
)


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


def cheap(name: str) -> Objective:
    """The objective with as little work as its settings allow."""
    kind = objective_class(name)
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in CHEAP.items() if key in known})  # type: ignore[arg-type]


def network_for(data: TrainingData, model: str = "small-cnn") -> Network:
    """A small network with first weights, for the images of `data`."""
    library = any(kind.knows(model) for kind in LIBRARIES)
    if library:
        pytest.importorskip(model.partition(":")[0])
    network = build(ModelSpec(model, 1.0 if library else 0.25, 3, data.input_shape, (0.3,), (0.3,)))
    initialise(network, torch.Generator().manual_seed(5))
    return network.train()


def batch_of(network: Network, data: TrainingData, objective: Objective, *, last: bool) -> Batch:
    """The first 24 images at two levels, in the first or the last epoch, with what is remembered by then."""
    rows, sigmas = torch.arange(24), torch.tensor([0.25, 0.5])
    images, labels = torch.from_numpy(data.images[:24]), torch.from_numpy(data.labels[:24])
    known: dict[str, torch.Tensor] = {}
    look = ImageLook(network, feed_of(data, rows.numpy(), "cpu"), labels, sigmas, 3, torch.Generator().manual_seed(1))
    for epoch in range(EPOCHS if last else 1):
        known = objective.review(epoch, EPOCHS, known, look)
    level = rows % 2
    return Batch(
        network, images, labels, sigmas[level], torch.Generator().manual_seed(6), EPOCHS - 1 if last else 0, EPOCHS,
        {key: value[rows, level] for key, value in known.items()},
    )  # fmt: skip


def test_tables_and_names_agree() -> None:
    for name in OBJECTIVES:
        objective = objective_class(name)()
        objective.check()
        assert (objective.kind, type(objective).__module__.rpartition(".")[2]) == (name, name)
        assert "arXiv" in str(__import__(type(objective).__module__, fromlist=["x"]).__doc__)
        assert ClassifierConfig(objective=objective).objective == objective
    for kind in KINDS:
        assert [other for other in KINDS if other.knows(kind.example)] == [kind]
        assert kind.shown in MODELS


@EVERY
@pytest.mark.parametrize("last", [False, True], ids=["first epoch", "last epoch"])
def test_losses_and_gradients_are_finite_and_steps_lower_them(name: str, last: bool, data: TrainingData) -> None:
    objective, network = cheap(name), network_for(data)
    batch = batch_of(network, data, objective, last=last)
    optimizer, values = torch.optim.AdamW(network.parameters(), 3e-3), []
    for _ in range(12):
        batch.generator.manual_seed(6)  # the same noise each time
        value = objective.loss(batch)
        optimizer.zero_grad()
        value.backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients
        assert all(g.isfinite().all() for g in gradients)
        optimizer.step()
        values.append(value.item())
    assert all(abs(value) < 1e6 for value in values)
    assert min(values[-3:]) < 0.9 * values[0]


@EVERY
def test_every_random_number_comes_from_the_batch(name: str, data: TrainingData) -> None:
    objective, network = cheap(name), network_for(data)
    batch = batch_of(network, data, objective, last=True)
    start, values = {key: value.clone() for key, value in network.state_dict().items()}, []
    for seed in (1, 2):
        network.load_state_dict(start)  # batch statistics move with every loss, and attacks go by them
        torch.manual_seed(seed)
        batch.generator.manual_seed(6)
        before = torch.get_rng_state()
        values.append(objective.loss(batch).item())
        assert torch.equal(torch.get_rng_state(), before)
    assert values[0] == values[1]


def equal(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same network, bit for bit."""
    one, two = (load_checkpoint(path).network().state_dict() for path in (a, b))
    return all(torch.equal(one[key], two[key]) for key in one)


def stopped(
    path: Path, data: TrainingData, config: Config, settings: ClassifierConfig, after: int, patch: pytest.MonkeyPatch
) -> None:
    """Train, be killed before the checkpoint that follows `after` epochs, and go on."""
    save = loop.save_checkpoint

    def save_or_die(path: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.epoch > after:
            raise KeyboardInterrupt
        save(path, checkpoint)

    with patch.context() as patched:
        patched.setattr(loop, "save_checkpoint", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(path, data, config, levels=config.sigmas, settings=settings)
    train_classifier(path, data, config, levels=config.sigmas, settings=settings)


@EVERY
def test_a_killed_training_ends_as_if_it_was_not(
    name: str, tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(tiny.classifier, objective=cheap(name), epochs=EPOCHS)
    train_classifier(tmp_path / "whole.pt", data, tiny, levels=tiny.sigmas, settings=settings)
    for after in range(1, EPOCHS):
        path = tmp_path / f"{after}.pt"
        stopped(path, data, tiny, settings, after, monkeypatch)
        assert equal(path, tmp_path / "whole.pt"), f"killed after {after} epochs"
    assert not load_checkpoint(tmp_path / "whole.pt").memory


@NETWORKS
def test_networks_have_finite_gradients_that_steps_follow(model: str, data: TrainingData) -> None:
    network, objective = network_for(data, model), cheap("gaussian")
    batch, values = batch_of(network, data, objective, last=False), []
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(10):
        batch.generator.manual_seed(6)
        value = objective.loss(batch)
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
        optimizer.step()
        values.append(value.item())
    assert min(values[-3:]) < 0.9 * values[0]


@NETWORKS
def test_networks_resume_bit_for_bit(
    model: str, tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_for(data, model)  # skips where its library is missing
    width = 0.25 if model in OWN or ":small" in model else 1.0
    settings = dataclasses.replace(tiny.classifier, model=model, width=width, epochs=2)
    train_classifier(tmp_path / "whole.pt", data, tiny, levels=tiny.sigmas, settings=settings)
    stopped(tmp_path / "part.pt", data, tiny, settings, 1, monkeypatch)
    assert equal(tmp_path / "whole.pt", tmp_path / "part.pt")


@NETWORKS
def test_networks_are_exported_exactly(model: str, data: TrainingData) -> None:
    network = network_for(data, model)
    noisy, sigma = torch.rand(8, *data.input_shape), torch.full((8,), 0.5)
    network(noisy, sigma) if network.takes_sigma else network(noisy)  # batch statistics that are not 0 and 1
    network.eval()
    assert check_parity(network, to_onnx(network, data.input_shape), data.input_shape, 3, 0.5, model) < TOLERANCE


def test_bfloat16_resumes_bit_for_bit(
    tiny: Config, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(tiny.classifier, autocast="bf16", objective=cheap("reweighted"), epochs=EPOCHS)
    train_classifier(tmp_path / "whole.pt", data, tiny, levels=tiny.sigmas, settings=settings)
    stopped(tmp_path / "part.pt", data, tiny, settings, 3, monkeypatch)
    assert equal(tmp_path / "whole.pt", tmp_path / "part.pt")
    plain = dataclasses.replace(settings, autocast="off")
    train_classifier(tmp_path / "plain.pt", data, tiny, levels=tiny.sigmas, settings=plain)
    assert not equal(tmp_path / "whole.pt", tmp_path / "plain.pt")
