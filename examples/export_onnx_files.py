"""ONNX files that someone else made, to an int8 bundle: checked, made dynamic, normalised inside, calibrated on noise.

python examples/export_onnx_files.py build/example-files
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import dualsmooth as ds
from dualsmooth.export import Pictures, export_bundle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def foreign_file(path: Path, outputs: int) -> Path:
    """As such files come: another input name, batch 1, normalised images expected."""
    torch.manual_seed(outputs)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs),
    )  # fmt: skip
    torch.onnx.export(
        network.eval(), (torch.zeros(1, 3, 12, 12),), path, dynamo=True, external_data=False,
        input_names=["pixel_values"], output_names=["scores"], verbose=False,
    )  # fmt: skip
    return path


def main(out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        estimator = foreign_file(Path(folder) / "router.onnx", 2)
        classifier = foreign_file(Path(folder) / "resnet.onnx", 4)
        images = np.random.default_rng(0).random((64, 3, 12, 12), np.float32)  # your training images
        bundle = export_bundle(
            out,
            estimator=estimator,
            classifiers=[classifier, classifier],
            sigmas=(0.25, 0.5),
            sigma_e=0.5,
            classes=("a", "b", "c", "d"),
            input_shape=(3, 12, 12),
            normalise={"estimator": (MEAN, STD), "classifier": (MEAN, STD)},  # what each network expects in front
            precision="int8",
            pictures=Pictures.choose("random images", images),
            floor=0.8,  # an untrained network has no opinion to agree with
        )
    for name, levels in bundle.provenance["precision"]["agreement"].items():
        print(f"{name}: votes like fp32 on {levels} of the noisy images")
    cert = ds.load(out).certify(images[0], budget=ds.Fixed(500), seed=0)
    print(f"{bundle.path}: {bundle.precision}; label {cert.label}, certified radius {cert.radius:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
