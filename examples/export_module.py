"""Any two PyTorch modules to a bundle: a classifier for all noise levels, and an estimator that routes.

python examples/export_module.py build/example-module
"""

import sys

import numpy as np
import torch
from torch import nn

import dualsmooth as ds
from dualsmooth.export import export_bundle

SIGMAS = (0.25, 0.5)
CLASSES = ("cat", "dog", "ship")


class Network(nn.Module):
    """Takes noisy images in [0, 1] units [N,3,8,8]: normalisation is its own business."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body((x - 0.45) / 0.25)
        return logits


def main(out: str) -> None:
    torch.manual_seed(0)
    classifier = Network(len(CLASSES))
    bundle = export_bundle(
        out,
        estimator=Network(len(SIGMAS)),  # one output for each noise level
        classifiers=[classifier] * len(SIGMAS),  # one for each noise level; the same one may repeat
        sigmas=SIGMAS,
        sigma_e=0.5,
        classes=CLASSES,
        input_shape=(3, 8, 8),
        provenance={"note": "untrained, an example"},
    )
    image = np.random.default_rng(0).random((3, 8, 8), np.float32)
    cert = ds.load(out).certify(image, budget=ds.Fixed(500), seed=0)
    print(f"{bundle.path}: {', '.join(bundle.files)}; label {cert.label}, certified radius {cert.radius:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
