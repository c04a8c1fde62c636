"""Two processes under `torchrun`, with gloo, against one process with the whole batch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dualsmooth.training import Config, load_run
from dualsmooth.training.loop.distributed import SharedBatchNorm2d
from dualsmooth.training.objectives import Objective
from dualsmooth.training.objectives.catrs import CatRS
from dualsmooth.training.objectives.reweighted import Reweighted
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint
from dualsmooth.training.run.history import read_history

FIT = """
import sys
from pathlib import Path
import numpy as np, torch, torch.distributed as dist
from dualsmooth.training import config_from, read_toml
from dualsmooth.training.loop import loop
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.lesson import Lesson
from dualsmooth.training.data import load_training_data
from dualsmooth.training.networks.models import initialise
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.seeds import Randomness

def refuse(*arguments, **keywords):
    raise AssertionError("only the first process writes")

torch.set_num_threads(1)
config, out = config_from(read_toml(sys.argv[1]), "test"), Path(sys.argv[2])
rank = 0
if len(sys.argv) > 3:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
if rank:
    loop.save_checkpoint = loop.append_history = refuse
data = load_training_data(config)
images, labels = torch.from_numpy(data.images) / 255, torch.from_numpy(data.labels)

class Plain(Lesson):
    def loss(self, network, index, generator):  # without noise: each process would draw its own
        return torch.nn.functional.cross_entropy(network(images[index]), labels[index])

    def begin(self, network):
        initialise(network, torch.Generator().manual_seed(rank))  # the first process decides

spec = ModelSpec("small-cnn", 0.25, 3, (1, 8, 8), (0.3,), (0.3,))
lesson = Plain(feed_of(data, np.arange(len(labels)), "cpu"), len(labels))
loop.fit(out, spec, lesson, config.classifier, seed=1, stream=Randomness.CLASSIFIER)
if len(sys.argv) > 3:
    dist.destroy_process_group()
"""

TRAIN = """
import os, sys
from dualsmooth.runtime import files
from dualsmooth.training import config_from, read_toml
from dualsmooth.training.loop import loop
from dualsmooth.training.run import record
from dualsmooth.training.stages import train as run

def refuse(*arguments, **keywords):
    raise AssertionError("only the first process writes")

if os.environ.get("RANK") == "1":
    loop.save_checkpoint = loop.append_history = run.write_json = run.write_atomically = refuse
run.train(config_from(read_toml(sys.argv[1]), "test"), sys.argv[2], threads=1)
"""


LOOK = """
import sys
import numpy as np, torch, torch.distributed as dist
from dualsmooth.training import config_from, read_toml
from dualsmooth.training.data import load_training_data
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.loop.look import ImageLook
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec

rank = 0
if len(sys.argv) > 3:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
data = load_training_data(config_from(read_toml(sys.argv[1]), "test"))
network = build(ModelSpec("small-cnn", 0.25, 3, (1, 8, 8), (0.3,), (0.3,)))
initialise(network, torch.Generator().manual_seed(0))
feed, labels = feed_of(data, np.arange(len(data.labels)), "cpu"), torch.from_numpy(data.labels)
sigmas = torch.tensor([1e-6, 0.5])  # nearly no noise: all processes see the same
look = ImageLook(network, feed, labels, sigmas, 3, torch.Generator().manual_seed(1))
found = {"hits": look.hits(5), "votes": look.votes(5)}
if not rank:
    torch.save(found, sys.argv[2])
if len(sys.argv) > 3:
    dist.destroy_process_group()
"""


def launch(code: str, *arguments: str, processes: int = 2, fails: bool = False) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = Path(arguments[0]).with_suffix(".py")
    script.write_text(code)
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert (result.returncode != 0) == fails, result.stderr[-3000:]
    return result.stderr


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tiny: Config, tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny.classifier, epochs=2, ema=0.5, clip_norm=1.0)
    (tmp_path / "c.toml").write_text(dataclasses.replace(tiny, classifier=settings).to_toml())
    (tmp_path / "two").mkdir()
    launch(FIT, str(tmp_path / "c.toml"), str(tmp_path / "one.pt"), processes=1)
    launch(FIT, str(tmp_path / "c.toml"), str(tmp_path / "two" / "two.pt"), "parallel")
    one, two = load_checkpoint(tmp_path / "one.pt"), load_checkpoint(tmp_path / "two" / "two.pt")
    for a, b in ((steps(one), steps(two)), (one.epoch, two.epoch)):
        assert a == b > 1
    assert one.average is not None
    assert two.average is not None
    for first, second in ((one.weights, two.weights), (one.average, two.average)):
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, atol=1e-4, rtol=1e-3, msg=name)
    losses = [[e["loss"] for e in read_history(p / "history.jsonl")] for p in (tmp_path, tmp_path / "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def steps(checkpoint: Checkpoint) -> int:
    return int(checkpoint.optimizer["state"][0]["step"])


@pytest.mark.slow
def test_a_whole_run_under_torchrun(tiny: Config, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(tiny.to_toml())
    launch(TRAIN, str(tmp_path / "c.toml"), str(tmp_path / "run"))
    assert load_run(tmp_path / "run").record["finished"]
    for name in ("classifier.pt", "estimator.pt"):
        assert steps(load_checkpoint(tmp_path / "run" / name)) == steps(load_checkpoint(finished / name))


@pytest.mark.slow
def test_processes_share_a_look_at_the_images(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(tiny.to_toml())
    launch(LOOK, str(tmp_path / "c.toml"), str(tmp_path / "one.pt"), processes=1)
    launch(LOOK, str(tmp_path / "c.toml"), str(tmp_path / "two.pt"), "parallel")
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    for found in (one, two):
        assert found["votes"].shape == (160, 2, 3)
        assert torch.allclose(found["votes"].sum(2), torch.ones(160, 2))
        assert 0 < found["hits"][:, 0].mean() < 1
    assert torch.equal(one["hits"][:, 0], two["hits"][:, 0])
    assert torch.equal(one["votes"][:, 0], two["votes"][:, 0])
    assert not torch.equal(one["votes"][:, 1], two["votes"][:, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [CatRS(votes=8, copies=2, steps=1), Reweighted(threshold=0.0, judging=8, votes=8)]
)
def test_objectives_that_remember_train_under_torchrun(objective: Objective, tiny: Config, tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny.classifier, objective=objective)
    (tmp_path / "c.toml").write_text(dataclasses.replace(tiny, classifier=settings).to_toml())
    launch(TRAIN, str(tmp_path / "c.toml"), str(tmp_path / "run"))
    assert load_run(tmp_path / "run").record["finished"]


@pytest.mark.slow
def test_errors_of_the_first_process_end_all(tiny: Config, tmp_path: Path) -> None:
    odd = dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, batch_size=33))
    (tmp_path / "c.toml").write_text(odd.to_toml())
    assert "choose a multiple of 2" in launch(TRAIN, str(tmp_path / "c.toml"), str(tmp_path / "run"), fails=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letters.txt").write_text("dear")
    assert "holds other files" in launch(TRAIN, str(tmp_path / "c.toml"), str(tmp_path / "taken"), fails=True)


def test_shared_batch_norm_is_batch_norm_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one process the sum over processes is the value itself."""
    monkeypatch.setattr("dualsmooth.training.loop.distributed.all_reduce", lambda value: value)
    plain, shared = torch.nn.BatchNorm2d(3), SharedBatchNorm2d(3)
    for layer in (plain, shared):
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    inputs = [x.clone().requires_grad_(True) for _ in range(2)]
    outputs = [layer(value) for layer, value in zip((plain, shared), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.pow(3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-3, rtol=1e-3)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[key], value, msg=key)
    torch.testing.assert_close(plain.eval()(x), shared.eval()(x))
