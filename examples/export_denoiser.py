"""A denoiser that knows the noise level, in front of a classifier; and an ensemble that stops where two members agree.

python examples/export_denoiser.py build/example-denoiser
"""

import sys

import numpy as np
import torch
from torch import nn

import dualsmooth as ds
from dualsmooth.export import Ensemble, export_bundle


class Denoised(nn.Module):
    """Denoised smoothing (Salman et al. 2020): a parameter named `sigma` makes the scalar input `sigma` of the file."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.denoiser = nn.Conv2d(1, 1, 3, padding=1)
        self.classifier = small(classes)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        clean = x - sigma * self.denoiser(x / torch.sqrt(1 + sigma**2))
        logits: torch.Tensor = self.classifier(clean)
        return logits


def small(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, outputs)
    )  # fmt: skip


def main(out: str) -> None:
    torch.manual_seed(0)
    bundle = export_bundle(
        out,
        estimator=small(2),
        classifiers=[
            Denoised(3),
            Ensemble((small(3), small(3), small(3)), consensus=2),
        ],
        sigmas=(0.25, 0.5),
        sigma_e=0.5,
        classes=("zero", "one", "two"),
        input_shape=(1, 8, 8),
    )
    image = np.random.default_rng(0).random((1, 8, 8), np.float32)
    cert = ds.load(out).certify(image, budget=ds.Fixed(500), seed=0)
    print(f"{bundle.path}: {', '.join(bundle.files)}; label {cert.label}, certified radius {cert.radius:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
