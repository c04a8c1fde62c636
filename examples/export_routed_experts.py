"""A router over three classifiers off the shelf, each trained for another noise level by somebody else.

python examples/export_routed_experts.py build/example-routed

The three are stand-ins: the experts of the bundle that ships, as bare ONNX files with names and batches of their own.
The router is trained on 160 of the 200 pictures that ship, which none of them has seen, and 8 of the other 40 are
certified: enough to see how it goes, too few to say how good it is. Put your files into `EXPERTS`; `experts_mean`
and `experts_std` of `Config` stand in front of those that expect normalised images.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import dualsmooth as ds
from dualsmooth.export import export_run
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.training import Config, EstimatorConfig, LabelConfig, MetricsConfig, train

EXPERTS = {sigma: SHIPPED_BUNDLE / f"classifier_{sigma}.onnx" for sigma in ("0.25", "0.5", "1")}
TRAINED_ON, CERTIFIED = slice(160), slice(160, 168)


def off_the_shelf(source: Path, path: Path) -> Path:
    """The same network as another tool would have written it: other names inside and out, one image at a time."""
    model = onnx.compose.add_prefix(onnx.load(source), "theirs/")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return path


def main(out: str) -> None:
    with np.load(SHIPPED_IMAGES) as arrays:
        images, labels, classes = arrays["x"], arrays["y"], arrays["classes"]
    with tempfile.TemporaryDirectory() as folder:
        files = {sigma: off_the_shelf(file, Path(folder) / f"network{sigma}.onnx") for sigma, file in EXPERTS.items()}
        pictures = Path(folder) / "pictures.npz"
        np.savez(pictures, x=images[TRAINED_ON], y=labels[TRAINED_ON], classes=classes)
        config = Config(
            dataset=f"npz:{pictures}",
            experts=tuple(f"{sigma}={file}" for sigma, file in files.items()),
            validation=32,
            labels=LabelConfig(images=0, votes=32, radii="margins", doubt=0.0),
            estimator=EstimatorConfig(  # as configs/fashion-mnist.toml has it, smaller
                width=0.5,
                epochs=12,
                batch_size=32,
                lr=2e-3,
                temperature=0.07,
                worth=0.5,
                regret=1.0,
                interval=25.0,
                softness=0.4,
                consistency=0.0,
                eta=0.0,
                balance=0.0,
            ),
            metrics=MetricsConfig(images=32, votes=50),
        )
        train(config, Path(folder) / "run")
        export_run(Path(folder) / "run", out)
    with ds.load(out) as smoother:
        found = list(smoother.certify_many(images[CERTIFIED, None], budget=ds.Fixed(500), all_levels=True))
    for certificate, label in zip(found, labels[CERTIFIED], strict=True):
        said = certificate.class_name or "abstained"
        print(f"{classes[label]}: {said}, sigma {certificate.sigma:g}, certified radius {certificate.radius:.3f}")
    for rule in ("interval", *(f"single:{sigma}" for sigma in EXPERTS)):  # of the same votes
        made = [certificate.recompute(rule=rule) for certificate in found]
        pairs = list(zip(made, labels[CERTIFIED], strict=True))
        right = sum(certificate.label == label for certificate, label in pairs)
        mean = np.mean([max(0.0, certificate.correct_radius(int(label))) for certificate, label in pairs])
        print(f"{rule}: {right} of {len(made)} right, mean radius {mean:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
