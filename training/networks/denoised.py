"""Denoised smoothing (Salman et al. 2020; Carlini et al. 2023): one denoising step, then a classifier, as one network.

The network is conditional on the noise level: x [N,C,H,W] and `sigma` (a scalar, or [N] in training) to logits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate, kl_div, mse_loss

from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.networks.network import ModelSpec, Network

_SPREAD = 0.5  # standard deviation that the preconditioning assumes for images in [-1, 1]
_UNFIT = (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError)


class SmallDenoiser(nn.Module):
    """A noise-conditional convolutional denoiser for images in [0, 1] units, preconditioned as in Karras et al. 2022
    (table 1): at small sigma it starts as the identity, at large sigma as the mean."""

    def __init__(self, input_shape: tuple[int, int, int], width: float, depth: float) -> None:
        super().__init__()
        channels, self.height, self.wide = input_shape
        features = max(4, round(48 * width))
        self.enter = nn.Conv2d(channels + 1, features, 3, padding=1)
        self.down = nn.Conv2d(features, 2 * features, 3, stride=2, padding=1)
        self.inner = nn.ModuleList(
            nn.Conv2d(2 * features, 2 * features, 3, padding=1) for _ in range(max(1, round(2 * depth)))
        )
        self.up = nn.Conv2d(2 * features, features, 1)
        self.leave = nn.Conv2d(features, channels, 3, padding=1)

    def first_weights(self) -> None:
        """Start without an opinion: the last layer gives zeros."""
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        noise = 2 * sigma.reshape(-1, 1, 1, 1)  # in units of images in [-1, 1]
        centred = 2 * x - 1
        total = torch.sqrt(noise.square() + _SPREAD**2)
        level = (noise.log() / 4).expand(x.shape[0], 1, self.height, self.wide)
        entered = torch.relu(self.enter(torch.cat([centred / total, level], 1)))
        hidden = torch.relu(self.down(entered))
        for layer in self.inner:
            hidden = torch.relu(hidden + layer(hidden))
        hidden = interpolate(self.up(hidden), size=(self.height, self.wide), mode="nearest")
        change = self.leave(torch.relu(entered + hidden))
        restored: torch.Tensor = centred * (_SPREAD / total).square() + change * noise * _SPREAD / total
        return (restored + 1) / 2


class DiffusionDenoiser(nn.Module):
    """One step of a diffusion model, a diffusers `UNet2DModel` that predicts the noise (Carlini et al. 2023).

    The timestep is the one whose ratio of noise to signal is nearest to that of the input: 2 * sigma for images in
    [-1, 1], sqrt((1 - alpha) / alpha) for the scheduler's cumulative alphas.
    """

    ratios: torch.Tensor

    def __init__(self, unet: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("ratios", torch.ones(timesteps))

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The timestep of each noise level."""
        return (self.ratios - 2 * sigma.reshape(-1, 1)).abs().argmin(1)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        step = self.timestep(sigma)
        ratio = self.ratios[step].view(-1, 1, 1, 1)
        noisy = 2 * x - 1
        predicted = self.unet(noisy / torch.sqrt(1 + ratio.square()), step.expand(x.shape[0])).sample
        restored: torch.Tensor = (noisy - ratio * predicted[:, : x.shape[1]]).clamp(-1, 1)
        return (restored + 1) / 2


class Denoised(Network):
    """A denoiser, then a classifier. In training `restored` and `logits` keep the last outputs of both."""

    takes_sigma = True
    restored: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def __init__(self, denoiser: nn.Module, classifier: Network) -> None:
        nn.Module.__init__(self)
        self.denoiser, self.classifier = denoiser, classifier
        self._fixed: tuple[nn.Module, ...] = ()

    normalise = property(lambda self: self.classifier.normalise)
    trunk = property(lambda self: self.classifier.trunk)
    head = property(lambda self: self.classifier.head)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        restored = self.denoiser(x, sigma)
        logits: torch.Tensor = self.classifier(restored)
        if self.training:
            self.restored, self.logits = restored, logits
        return logits

    def fix(self, *parts: nn.Module) -> None:
        """Leave the weights and statistics of `parts` as they are from now on."""
        self._fixed = parts
        for part in parts:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Denoised:
        super().train(mode)
        for part in self._fixed:
            part.eval()
        return self


def denoising_loss(network: Denoised, clean: torch.Tensor, mse: float, stability: float) -> torch.Tensor:
    """What the last pass of `network` in training adds to its objective, for clean images [B,C,H,W] in [0, 1].

    `mse` times the mean squared error of the restored images, plus `stability` times the KL divergence of the
    prediction for them from that for the clean ones (Salman et al. 2020, section 3.2).
    """
    if network.restored is None or network.logits is None:
        raise RuntimeError("the network made no pass in training mode")
    copies = len(network.restored) // len(clean)
    loss = mse * mse_loss(network.restored.float(), clean.repeat(copies, 1, 1, 1))
    if stability:
        with _evaluating(network.classifier), torch.no_grad():
            target = network.classifier(clean).float().log_softmax(-1).repeat(copies, 1)
        found = network.logits.float().log_softmax(-1)
        loss = loss + stability * kl_div(found, target, reduction="batchmean", log_target=True)
    network.restored = network.logits = None
    return loss


def denoised(spec: ModelSpec, classifier: Network) -> Denoised:
    """The network of a spec `denoised:MODEL` around its classifier; `spec.denoiser` may describe a UNet."""
    if not spec.denoiser:
        return Denoised(SmallDenoiser(spec.input_shape, spec.width, spec.depth), classifier)
    described = json.loads(spec.denoiser)
    try:
        unet = _diffusers().UNet2DModel.from_config(described["unet"])
        network = Denoised(DiffusionDenoiser(unet, int(described["timesteps"])), classifier)
        with torch.no_grad(), _evaluating(network):
            network(torch.zeros(1, *spec.input_shape), torch.tensor(0.5))
    except _UNFIT as error:
        raise InputError(
            f"the UNet cannot denoise images {list(spec.input_shape)} ({one_line(error)}); choose one of their size"
        ) from error
    network.fix(network.denoiser)
    return network


def describe_unet(folder: str | Path) -> str:
    """What `ModelSpec.denoiser` keeps of a diffusers folder (`unet/` and `scheduler/`); raises `InputError`."""
    unet, ratios = _read(folder)
    config = {key: value for key, value in dict(unet.config).items() if not key.startswith("_")}
    return json.dumps({"unet": config, "timesteps": len(ratios)}, sort_keys=True)


def load_unet(network: Denoised, folder: str | Path) -> None:
    """Fill the denoiser of `network` with the weights and the noise schedule in a diffusers folder."""
    unet, ratios = _read(folder)
    denoiser = network.denoiser
    if not isinstance(denoiser, DiffusionDenoiser):
        raise InputError("the network has a denoiser of our own; expected one that was made for a UNet")
    denoiser.unet.load_state_dict(unet.state_dict())
    denoiser.ratios.copy_(ratios)


def _read(folder: str | Path) -> tuple[Any, torch.Tensor]:
    library, root = _diffusers(), Path(folder)
    if not (root / "unet").is_dir() or not (root / "scheduler").is_dir():
        raise InputError(f"{root} has no unet and scheduler folders; expected a pipeline that diffusers saved")
    try:
        unet = library.UNet2DModel.from_pretrained(root / "unet", local_files_only=True, use_safetensors=True)
        alphas = library.DDPMScheduler.from_pretrained(root / "scheduler", local_files_only=True).alphas_cumprod
    except _UNFIT as error:
        raise InputError(
            f"cannot read {root} ({one_line(error)}); expected safetensors that diffusers saved"
        ) from error
    return unet, torch.sqrt((1 - alphas) / alphas).float()


def _diffusers() -> Any:
    try:
        return import_module("diffusers")
    except ImportError as error:
        raise InputError("a UNet denoiser needs diffusers; pip install 'dualsmooth[diffusers]'") from error


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
