"""The networks that speed is measured on: bundles, the PyTorch modules behind them, and the plain loop over a module.

Weights are random (a pass costs the same whatever it says), except for the shipped CNN's ONNX file. ImageNet-size:
ResNet-50 at 224 x 224, from torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dualsmooth.export.bundle import export_bundle
from dualsmooth.export.checks.agreement import Pictures
from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.networks.zoo import IMAGENET

SIGMAS = (0.25, 0.5, 1.0)
GREY = ((0.2860,), (0.3530,))
COLOUR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
SPECS = {
    "shipped-cnn": ModelSpec("small-cnn", 1.0, 10, (1, 28, 28), *GREY),
    "resnet20": ModelSpec("resnet20", 1.0, 10, (3, 32, 32), *COLOUR),
    "resnet20-64": ModelSpec("resnet20", 1.0, 10, (3, 64, 64), *COLOUR),
    "resnet110": ModelSpec("resnet110", 1.0, 10, (3, 32, 32), *COLOUR),
    "resnet50-224": ModelSpec("torchvision:resnet50", 1.0, 1000, (3, 224, 224), *IMAGENET),
}


def module(name: str) -> nn.Module:
    """The classifier as a module in evaluation mode, with the same random weights every time. Raises `InputError`."""
    if name not in SPECS:
        raise InputError(f"network {name!r} is unknown; expected a bundle's folder, or one of {', '.join(SPECS)}")
    network = build(SPECS[name])
    initialise(network, torch.Generator().manual_seed(0))
    return network.eval()


def bundle(name: str, precision: str, folder: Path) -> Bundle:
    """The bundle of `module(name)` in `precision`, made in `folder` where it is not there yet.

    The estimator is a small CNN: what is timed are the classifier's passes. Raises `InputError`, `BundleError`.
    """
    if (name, precision) == ("shipped-cnn", "fp32"):
        return read_bundle(SHIPPED_BUNDLE)
    out = folder / f"{name}-{precision}"
    if not out.exists():
        classifier = module(name)
        shape, classes = SPECS[name].input_shape, SPECS[name].outputs
        estimator = build(ModelSpec("small-cnn", 0.25, len(SIGMAS), shape, SPECS[name].mean, SPECS[name].std))
        initialise(estimator, torch.Generator().manual_seed(1))
        random = np.random.default_rng(0).random((16, *shape), np.float32)
        export_bundle(
            out,
            estimator=estimator.eval(),
            classifiers=[classifier] * len(SIGMAS),
            sigmas=SIGMAS,
            sigma_e=1.0,
            classes=[str(number) for number in range(classes)],
            input_shape=shape,
            precision=precision,
            pictures=None if precision == "fp32" else Pictures.choose("random images", random),
            force=True,
            parity_batches=(3,),
            provenance={"note": "random weights, to measure speed"},
        )
    return read_bundle(out)


def plain_loop(
    network: nn.Module, shape: tuple[int, int, int], sigma: float, batch: int, threads: int
) -> Callable[[int], int]:
    """CERTIFY's loop as the field writes it (Cohen et al. 2019, `_sample_noise`): repeat, randn, arg max, count; eager
    PyTorch in float32, on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)

    def loop(passes: int) -> int:
        if threads:
            torch.set_num_threads(threads)
        left, counts = passes, torch.zeros(0, dtype=torch.long)
        with torch.no_grad():
            while left > 0:
                size = min(batch, left)
                copies = image.repeat((size, 1, 1, 1))
                logits = network(copies + torch.randn_like(copies) * sigma)
                found = torch.bincount(logits.argmax(1).cpu(), minlength=logits.shape[1])
                counts = found + (counts if len(counts) else 0)
                left -= size
        return int(counts.sum())

    return loop
