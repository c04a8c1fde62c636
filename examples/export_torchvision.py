"""A network of torchvision's to a bundle of one noise level that takes any photo: its weights say how pictures become
its input.

python examples/export_torchvision.py build/example-torchvision
"""

import sys

import numpy as np
import torch
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

import dualsmooth as ds
from dualsmooth.export import export_bundle

WEIGHTS = MobileNet_V3_Small_Weights.DEFAULT
SIGMA = 0.25


def main(out: str) -> None:
    torch.manual_seed(0)
    network = mobilenet_v3_small(
        weights=None
    )  # weights=WEIGHTS fetches theirs; train on under noise of SIGMA, or it abstains
    theirs = WEIGHTS.transforms()
    (side,), (resize,) = theirs.crop_size, theirs.resize_size
    bundle = export_bundle(
        out,
        classifiers=[network],
        sigmas=[SIGMA],  # one level needs no estimator
        classes=WEIGHTS.meta["categories"],
        input_shape=(3, side, side),
        resize=resize,
        resampling=theirs.interpolation.value,
        normalise={"classifier": (theirs.mean, theirs.std)},
        provenance={"note": "untrained, an example"},
    )
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # yours: a path, a picture of PIL's, …
    cert = ds.load(out).certify(photo, budget=ds.Fixed(100), alpha=0.01, seed=0)
    print(f"{bundle.path}: {', '.join(bundle.files)}; label {cert.class_name}, certified radius {cert.radius:.3f}")
    print(cert.artefact.about)


if __name__ == "__main__":
    main(sys.argv[1])
