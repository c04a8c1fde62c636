from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dualsmooth.export import export_bundle, to_onnx
from dualsmooth.export.checks.parity import TOLERANCE, check_parity
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.training import Config, load_run, train
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.networks.denoised import (
    Denoised,
    DiffusionDenoiser,
    SmallDenoiser,
    denoising_loss,
    describe_unet,
    load_unet,
)  # fmt: skip
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec, Network, copy_trunk, predict
from dualsmooth.training.networks.pretrained import load_pretrained
from dualsmooth.training.run.checkpoint import load_checkpoint
from dualsmooth.training.stages.classifier import train_classifier

SHAPE = (1, 8, 8)


def spec(**changes: object) -> ModelSpec:
    return dataclasses.replace(ModelSpec("denoised:small-cnn", 0.25, 3, SHAPE, (0.5,), (0.3,)), **changes)  # type: ignore[arg-type]


def made(**changes: object) -> Denoised:
    network = build(spec(**changes))
    assert isinstance(network, Denoised)
    initialise(network, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.denoiser.leave.weight, std=0.3, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr, arg-type]
    return network.eval()


def test_an_untrained_denoiser_is_the_identity_without_noise_and_grey_under_much() -> None:
    denoiser = SmallDenoiser((3, 9, 7), 0.5, 1.0)
    denoiser.first_weights()
    torch.nn.init.zeros_(denoiser.leave.bias)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denoiser(x, torch.tensor(1e-4)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser(x, torch.tensor(1e3)), torch.full_like(x, 0.5), atol=1e-5, rtol=0)


def test_one_level_for_all_is_that_level_for_each() -> None:
    network = made()
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(network(x, torch.tensor(0.5)), network(x, torch.full((3,), 0.5)))
    assert not torch.allclose(network(x, torch.tensor(0.5)), network(x, torch.tensor(1.0)))
    assert torch.equal(predict(network, x, torch.full((3,), 0.5)), network(x, torch.full((3,), 0.5)))
    torch.testing.assert_close(
        network(x, torch.tensor(0.5)), network.classifier(network.denoiser(x, torch.tensor(0.5)))
    )


def test_the_denoising_loss_by_hand() -> None:
    network, clean = made().train(), torch.rand(2, *SHAPE)
    noisy, sigma = torch.rand(4, *SHAPE), torch.full((4,), 0.5)
    logits = network(noisy, sigma)
    restored = network.denoiser(noisy, sigma)
    mse = (restored - clean.repeat(2, 1, 1, 1)).square().mean()
    network.eval()
    p = network.classifier(clean).softmax(1).repeat(2, 1)
    network.train()
    kl = (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(denoising_loss(network, clean, 2.0, 3.0), 2 * mse + 3 * kl)


@pytest.mark.slow
def test_one_graph_takes_the_level_and_gives_the_logits_of_torch_at_each(tmp_path: Path) -> None:
    network = made()
    levels = (0.12, 0.25, 1.0)
    data = to_onnx(network, SHAPE)
    assert check_parity(network, data, SHAPE, 3, levels, "d.onnx") < TOLERANCE
    other = made()
    with torch.no_grad():
        other.denoiser.leave.bias += 0.5  # type: ignore[union-attr]
    with pytest.raises(BundleError, match="differs"):
        check_parity(other, data, SHAPE, 3, levels, "d.onnx")
    estimator = build(spec(name="small-cnn")).eval()
    bundle = export_bundle(
        tmp_path / "bundle", estimator=estimator, classifiers=[network] * 3, sigmas=levels, sigma_e=1.0,
        classes=["a", "b", "c"], input_shape=SHAPE,
    )  # fmt: skip
    engine, x = OnnxEngine(bundle), np.random.default_rng(0).random((5, *SHAPE), np.float32)
    assert engine.takes_sigma(bundle.classifiers[0])
    for level in levels:
        expected = network(torch.from_numpy(x), torch.tensor(level)).argmax(1)
        np.testing.assert_array_equal(engine.votes(bundle.classifiers[0], x, level, 3), expected.numpy())


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


def settings(config: Config, **changes: object) -> Config:
    stage = dataclasses.replace(config.classifier, model="denoised:small-cnn", **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, classifier=stage)


def test_training_denoises_and_classifies(tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    config = settings(tiny, epochs=10, mse=5.0, stability=0.1)
    network = train_classifier(tmp_path / "c.pt", data, config, levels=(0.25, 0.5))
    assert isinstance(network, Denoised)
    clean = torch.from_numpy(data.validation_images) / 255.0
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(0.5)
    untrained = build(spec()).denoiser  # type: ignore[operator]
    untrained.first_weights()  # type: ignore[union-attr, operator]
    error = (network.denoiser(noisy, sigma) - clean).square().mean()
    assert error < 0.7 * (untrained(noisy, sigma) - clean).square().mean()  # type: ignore[operator]
    assert (network(noisy, sigma).argmax(1) == torch.from_numpy(data.validation_labels)).float().mean() > 0.7


@pytest.mark.parametrize("part", ["denoiser", "classifier"])
def test_one_part_is_trained_and_the_other_stays(part: str, tiny: Config, data: TrainingData, tmp_path: Path) -> None:
    first = train_classifier(tmp_path / "a.pt", data, settings(tiny, epochs=1), levels=(0.5,))
    config = settings(tiny, epochs=1, denoised_part=part)
    tuned = train_classifier(tmp_path / "b.pt", data, config, levels=(0.5,), start=first)
    for name in ("denoiser", "classifier"):
        before, after = getattr(first, name).state_dict(), getattr(tuned, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before) == (name != part)


def test_a_plain_classifier_can_be_put_behind_the_denoiser(tmp_path: Path) -> None:
    plain, network = build(spec(name="small-cnn")), made()
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    load_pretrained(network, tmp_path / "w.pth")
    assert torch.equal(network.classifier.head.weight, plain.head.weight)
    target: Network = build(spec(name="small-cnn", outputs=2))
    copy_trunk(network, target)
    assert torch.equal(target.trunk[0].weight, plain.trunk[0].weight)  # type: ignore[index]


@pytest.mark.slow
def test_a_whole_run_with_a_denoiser(tiny: Config, tmp_path: Path) -> None:
    train(settings(tiny), tmp_path / "run", threads=1)
    assert isinstance(load_run(tmp_path / "run").classifiers[0], Denoised)


def test_settings_that_need_a_denoiser_are_refused_without(tiny: Config) -> None:
    with pytest.raises(InputError, match="has no denoiser"):
        dataclasses.replace(tiny, classifier=dataclasses.replace(tiny.classifier, denoised_part="denoiser"))
    with pytest.raises(InputError, match="all, denoiser or classifier"):
        settings(tiny, denoised_part="both")
    with pytest.raises(InputError, match="a plain model"):
        dataclasses.replace(tiny, estimator=dataclasses.replace(tiny.estimator, model="denoised:small-cnn"))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A tiny diffusion model with random weights, as diffusers saves it."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
        norm_num_groups=4, attention_head_dim=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "pipe" / "unet")
    diffusers.DDPMScheduler(num_train_timesteps=1000).save_pretrained(tmp_path / "pipe" / "scheduler")
    return tmp_path / "pipe"


def diffusion(pipeline: Path) -> Denoised:
    network = build(spec(denoiser=describe_unet(pipeline)))
    assert isinstance(network, Denoised)
    initialise(network, torch.Generator().manual_seed(0))
    load_unet(network, pipeline)
    return network.eval()


def test_the_timestep_has_the_noise_of_the_input(pipeline: Path) -> None:
    """Betas rise linearly from 1e-4 to 0.02: the cumulative alphas are known."""
    denoiser = diffusion(pipeline).denoiser
    assert isinstance(denoiser, DiffusionDenoiser)
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for sigma in (0.05, 0.25, 0.5, 1.0):
        (step,) = denoiser.timestep(torch.tensor(sigma)).tolist()
        noise = [math.sqrt((1 - alphas[t]) / alphas[t]) for t in (step - 1, step, step + 1)]
        assert noise[0] < 2 * sigma < noise[2]
        assert abs(noise[1] - 2 * sigma) <= min(abs(noise[0] - 2 * sigma), abs(noise[2] - 2 * sigma)) + 1e-6


def test_one_step_removes_noise_that_is_predicted_exactly(pipeline: Path) -> None:
    denoiser = diffusion(pipeline).denoiser
    assert isinstance(denoiser, DiffusionDenoiser)
    clean, noise = torch.rand(2, *SHAPE), torch.randn(2, *SHAPE)
    sigma = denoiser.ratios[300] / 2
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Oracle(torch.nn.Module):
        def forward(self, x: torch.Tensor, step: torch.Tensor) -> object:
            seen.append((x, step))
            return type("Output", (), {"sample": noise})

    denoiser.unet = Oracle()
    torch.testing.assert_close(denoiser(clean + sigma * noise, sigma), clean, atol=1e-5, rtol=0)
    assert seen[0][1].tolist() == [300, 300]
    alpha = 1 / (1 + denoiser.ratios[300] ** 2)
    expected = alpha.sqrt() * (2 * clean - 1) + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(seen[0][0], expected, atol=1e-5, rtol=1e-5)


def test_a_unet_is_kept_in_the_checkpoint_and_never_changes(
    pipeline: Path, tiny: Config, data: TrainingData, tmp_path: Path
) -> None:
    config = settings(tiny, epochs=1, denoiser=str(pipeline))
    network = train_classifier(tmp_path / "c.pt", data, config, levels=(0.5,))
    fresh = diffusion(pipeline).denoiser.state_dict()
    again = load_checkpoint(tmp_path / "c.pt").network()
    for key, value in network.denoiser.state_dict().items():  # type: ignore[union-attr, operator]
        assert torch.equal(value, fresh[key])
    x = torch.rand(2, *SHAPE)
    assert torch.equal(predict(again, x, torch.tensor(0.5)), predict(network, x, torch.tensor(0.5)))
    with pytest.raises(InputError, match="no unet and scheduler"):
        describe_unet(tmp_path)


@pytest.mark.slow
def test_a_unet_is_exported_with_its_level(pipeline: Path) -> None:
    network = diffusion(pipeline)
    assert check_parity(network, to_onnx(network, SHAPE), SHAPE, 3, (0.1, 0.5, 1.0), "u.onnx") < TOLERANCE
