"""A network of timm's to a bundle of one noise level that takes any photo: its configuration says how pictures become
its input.

python examples/export_timm.py build/example-timm
"""

import math
import sys

import numpy as np
import timm
import torch

import dualsmooth as ds
from dualsmooth.export import export_bundle

SIGMA = 0.25


def main(out: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", pretrained=False)  # True fetches weights; train on under noise
    theirs = timm.data.resolve_model_data_config(network)
    channels, height, width = theirs["input_size"]
    assert theirs["crop_mode"] == "center", (
        "timm's other modes pad or squash: give both sides as resize=(height, width)"
    )
    bundle = export_bundle(
        out,
        classifiers=[network],
        sigmas=[SIGMA],  # one level needs no estimator
        classes=[f"class {number}" for number in range(network.num_classes)],
        input_shape=(channels, height, width),
        resize=math.floor(height / theirs["crop_pct"]),
        resampling=theirs["interpolation"],
        normalise={"classifier": (theirs["mean"], theirs["std"])},
        provenance={"note": "untrained, an example"},
    )
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # yours: a path, a picture of PIL's, …
    cert = ds.load(out).certify(photo, budget=ds.Fixed(100), alpha=0.01, seed=0)
    print(f"{bundle.path}: {', '.join(bundle.files)}; label {cert.class_name}, certified radius {cert.radius:.3f}")
    print(cert.artefact.about)


if __name__ == "__main__":
    main(sys.argv[1])
