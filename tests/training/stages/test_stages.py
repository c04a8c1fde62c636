"""Experts per level, cross-fitting, rounds, experts from elsewhere, and stages taken over from another run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from dualsmooth.export import export_run, to_onnx
from dualsmooth.runtime.errors import InputError
from dualsmooth.training import ClassifierConfig, Config, config_from, load_run, train
from dualsmooth.training.config import read_toml
from dualsmooth.training.data import load_training_data
from dualsmooth.training.networks.architectures import architecture
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.consistency import Consistency
from dualsmooth.training.objectives.gaussian import Gaussian
from dualsmooth.training.objectives.objective import Objective
from dualsmooth.training.run.borrow import offered
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.stages.experts import adopt_experts


def experts(config: Config, **settings: object) -> Config:
    classifier = dataclasses.replace(config.classifier, experts=True, epochs=2)
    return dataclasses.replace(config, classifier=classifier, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def per_level(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "experts"
    train(experts(tiny), path, threads=1)
    return path


def same(a: Path, b: Path) -> bool:
    left, right = load_checkpoint(a).network().state_dict(), load_checkpoint(b).network().state_dict()
    return all(torch.equal(left[key], right[key]) for key in left)


def test_each_level_has_an_expert_of_its_own(per_level: Path) -> None:
    run = load_run(per_level)
    assert run.record["classifiers"] == ["classifier_0.25.pt", "classifier_0.5.pt"]
    assert run.classifiers[0] is not run.classifiers[1]
    assert not same(per_level / "classifier_0.25.pt", per_level / "classifier_0.5.pt")


def test_in_a_chain_an_expert_starts_from_the_one_below(tiny: Config, per_level: Path, tmp_path: Path) -> None:
    """With steps too small to change a bit, the second network is the first, seen for `chain` epochs; none is taken
    over alone."""
    still = dataclasses.replace(tiny.classifier, experts=True, chain=1, epochs=2, lr=1e-12, weight_decay=0.0)
    config = dataclasses.replace(tiny, classifier=still)
    train(config, tmp_path / "run", threads=1)
    lowest, above = (load_checkpoint(tmp_path / "run" / f"classifier_{s}.pt").network() for s in (0.25, 0.5))
    for name, value in lowest.named_parameters():
        torch.testing.assert_close(value, dict(above.named_parameters())[name], atol=1e-6, rtol=0)
    assert [load_checkpoint(tmp_path / "run" / f"classifier_{s}.pt").epoch for s in (0.25, 0.5)] == [2, 1]
    with pytest.raises(InputError, match="no finished stage"):
        train(dataclasses.replace(config, sigmas=(0.5, 1.0)), tmp_path / "other", threads=1, reuse=tmp_path / "run")
    with pytest.raises(InputError, match="chain is 1 without experts"):
        dataclasses.replace(still, experts=False)


@pytest.mark.parametrize("name", ["lowest", "highest"])
def test_the_lowest_and_the_highest_level_may_have_an_objective_of_their_own(
    name: str, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each objective trains its own level, and no other; so it is after the configuration went through its file."""
    seen: dict[type[Objective], set[float]] = {}
    for kind in (Gaussian, Consistency):

        def loss(self: Objective, batch: Batch, whole: Callable[..., torch.Tensor] = kind.loss) -> torch.Tensor:
            seen.setdefault(type(self), set()).update(batch.sigma.tolist())
            return whole(self, batch)

        monkeypatch.setattr(kind, "loss", loss)

    def apart(objective: Consistency, *, experts: bool = True) -> ClassifierConfig:
        changes: dict[str, Any] = {"experts": experts, "chain": int(experts), name: objective}
        return dataclasses.replace(tiny.classifier, objective=Gaussian(), **changes)

    config = dataclasses.replace(tiny, classifier=apart(Consistency()))
    train(config, tmp_path / "run", threads=1)
    level, other = (0.25, 0.5) if name == "lowest" else (0.5, 0.25)
    assert seen == {Consistency: {level}, Gaussian: {other}}
    assert config_from(read_toml(tmp_path / "run" / "config.toml"), "run") == config
    with pytest.raises(InputError, match=rf"classifier\.{name} is given without experts"):
        apart(Consistency(), experts=False)
    with pytest.raises(InputError, match=rf"classifier\.{name}\.copies is 1"):
        apart(Consistency(copies=1))


@pytest.mark.slow
def test_a_second_run_takes_over_what_it_shares_and_ends_as_if_it_had_not(
    tiny: Config, per_level: Path, tmp_path: Path
) -> None:
    """Another estimator over the same experts and labels; its result is that of a run made from nothing."""
    other = dataclasses.replace(experts(tiny), estimator=dataclasses.replace(tiny.estimator, temperature=0.2))
    train(other, tmp_path / "alone", threads=1)
    train(other, tmp_path / "with", threads=1, reuse=per_level)
    borrowed = load_run(tmp_path / "with").record["borrowed"]
    assert {"classifier_0.25.pt", "classifier_0.5.pt", "labels/*.npy"} <= set(borrowed["files"])
    assert "estimator.pt" not in borrowed["files"]
    assert borrowed["sessions"] == load_run(per_level).record["sessions"]
    assert same(tmp_path / "alone" / "estimator.pt", tmp_path / "with" / "estimator.pt")
    assert not same(tmp_path / "with" / "estimator.pt", per_level / "estimator.pt")
    assert (tmp_path / "alone" / "metrics.json").read_text() == (tmp_path / "with" / "metrics.json").read_text()


@pytest.mark.slow
def test_experts_are_taken_over_level_by_level(tiny: Config, per_level: Path, tmp_path: Path) -> None:
    finer = dataclasses.replace(experts(tiny), sigmas=(0.25, 0.35, 0.5))
    train(finer, tmp_path / "finer", threads=1, reuse=per_level)
    assert set(load_run(tmp_path / "finer").record["borrowed"]["files"]) == {"classifier_0.25.pt", "classifier_0.5.pt"}


@pytest.mark.parametrize(
    ("name", "sigmas", "left"), [("highest", (0.25, 0.5, 1.0), "0.25"), ("lowest", (0.12, 0.25, 0.5), "0.5")]
)
def test_an_expert_with_an_objective_of_its_own_is_not_taken_over_for_a_level_without_one(
    name: str, sigmas: tuple[float, ...], left: str, tiny: Config, per_level: Path, tmp_path: Path
) -> None:
    """With one more level above (below), what was the highest (lowest) one is no longer."""
    config = experts(tiny)
    apart: dict[str, Any] = {name: Consistency()}
    config = dataclasses.replace(config, classifier=dataclasses.replace(config.classifier, **apart))
    shutil.copytree(per_level, tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text(config.to_toml())
    offer = offered(tmp_path / "run", dataclasses.replace(config, sigmas=sigmas))
    assert list(offer.files) == [f"classifier_{left}.pt"]


@pytest.mark.parametrize("change", [{"seed": 8}, {"augment": False}, {"validation": 30}])
def test_nothing_is_taken_over_from_a_run_that_shares_nothing(
    change: dict[str, object], tiny: Config, per_level: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no finished stage that this configuration shares"):
        train(experts(tiny, **change), tmp_path / "run", threads=1, reuse=per_level)
    with pytest.raises(InputError, match="is not a run directory"):
        train(experts(tiny), tmp_path / "run2", threads=1, reuse=tmp_path)


@pytest.mark.slow
def test_with_folds_every_image_is_labelled_by_networks_that_have_not_seen_it(tiny: Config, tmp_path: Path) -> None:
    """With random labels, a network is right on images that it learned by heart and at chance on others."""
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", x=generator.integers(0, 256, (80, 8, 8), np.uint8), y=generator.integers(0, 3, 80))
    settings = dataclasses.replace(tiny.classifier, epochs=150, lr=0.01, weight_decay=0.0, width=0.5)
    base = dataclasses.replace(
        tiny, dataset=f"npz:{tmp_path / 'noise.npz'}", sigmas=(0.02, 0.05), sigma_e=0.05, classifier=settings,
        estimator=dataclasses.replace(tiny.estimator, epochs=1, from_classifier=False),
    )  # fmt: skip
    shares = {}
    for folds in (0, 2):
        config = dataclasses.replace(base, labels=dataclasses.replace(base.labels, images=0, doubt=0.0, folds=folds))
        out = tmp_path / f"run{folds}"
        train(config, out, threads=1)
        votes = np.concatenate([np.load(p) for p in sorted(out.glob("*labels/*.npy"))])
        assert len(votes) == 60
        shares[folds] = votes[:, 0].sum() / votes[:, 1].sum()
    assert shares[0] > 0.8
    assert shares[2] < 0.6


@pytest.mark.slow
def test_a_second_round_fine_tunes_where_the_router_sends_images(tiny: Config, per_level: Path, tmp_path: Path) -> None:
    tuned = dataclasses.replace(tiny.finetune, epochs=1)
    train(experts(tiny, rounds=2, finetune=tuned), tmp_path / "run", threads=1, reuse=per_level)
    run = load_run(tmp_path / "run")
    assert run.record["classifiers"] == ["round2/classifier_0.25.pt", "round2/classifier_0.5.pt"]
    assert run.record["estimator"] == "round2/estimator.pt"
    assert same(tmp_path / "run" / "estimator.pt", per_level / "estimator.pt")
    assert not same(tmp_path / "run" / "round2" / "classifier_0.5.pt", per_level / "classifier_0.5.pt")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["rounds"]) == 2
    assert metrics["rounds"][0] == json.loads((per_level / "metrics.json").read_text())


def test_experts_from_anywhere_get_a_router(tiny: Config, tmp_path: Path) -> None:
    network = build(ModelSpec("small-cnn", 0.25, 3, (1, 8, 8), (0.3,), (0.3,)))
    initialise(network, torch.Generator().manual_seed(3))
    (tmp_path / "a.onnx").write_bytes(to_onnx(network, (1, 8, 8)))
    files = (f"0.1={tmp_path / 'a.onnx'}", f"0.4={tmp_path / 'a.onnx'}")
    config = dataclasses.replace(tiny, experts=files, sigma_e=0.0)
    train(config, tmp_path / "run", threads=1)
    run = load_run(tmp_path / "run")
    assert run.sigmas == (0.1, 0.4)
    assert [p.name for p in run.classifiers if isinstance(p, Path)] == ["classifier_0.1.onnx", "classifier_0.4.onnx"]
    assert run.estimator(torch.zeros(1, *load_training_data(config).input_shape)).shape == (1, 2)
    bundle = export_run(tmp_path / "run", tmp_path / "bundle")
    assert bundle.sigmas == (0.1, 0.4)


def test_experts_may_be_checkpoints_that_expect_normalised_images(tiny: Config, tmp_path: Path) -> None:
    network = architecture("resnet8", 3, (1, 8, 8)).eval()
    torch.save({"net": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "a.pth")
    given: dict[str, Any] = {
        "experts": (f"0.25={tmp_path / 'a.pth'}",),
        "experts_mean": (0.3,),
        "experts_std": (0.2,),
        "sigma_e": 0.0,
    }
    with pytest.raises(InputError, match=r"a PyTorch checkpoint.*--experts-arch"):
        adopt_experts(tmp_path, dataclasses.replace(tiny, **given), 3, (1, 8, 8))
    config = dataclasses.replace(tiny, experts_arch="resnet8", **given)
    assert config_from(tomllib.loads(config.to_toml()), "test") == config
    adopt_experts(tmp_path, config, 3, (1, 8, 8))
    session = onnxruntime.InferenceSession(tmp_path / "classifier_0.25.onnx", providers=["CPUExecutionProvider"])
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = network((x - 0.3) / 0.2)
    found = torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.25", "SIGMA=FILE.onnx"),
        ("x=a.onnx", "SIGMA=FILE.onnx"),
        ("0.25=/nowhere/a.onnx", "/nowhere/a.onnx is not a file"),
        ("0.25={garbage}", "garbage.onnx is text that begins with 'garbage', not an ONNX file"),
        ("0.25={two}", "has 2 outputs; expected one for each of 3 classes"),
    ],
)
def test_bad_experts_are_refused_with_one_line(text: str, message: str, tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    network = build(ModelSpec("small-cnn", 0.25, 2, (1, 8, 8), (0.3,), (0.3,)))
    (tmp_path / "two.onnx").write_bytes(to_onnx(network.eval(), (1, 8, 8)))
    text = text.format(garbage=tmp_path / "garbage.onnx", two=tmp_path / "two.onnx")
    with pytest.raises(InputError) as caught:
        train(dataclasses.replace(tiny, experts=(text,), sigma_e=0.0), tmp_path / "run", threads=1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
