"""Replace a bundle that ships in the package; for Fashion-MNIST the 200 test images beside it too.

dualsmooth train --config configs/fashion-mnist.toml --out runs/fashion-mnist
python scripts/ship_bundle.py fashion-mnist runs/fashion-mnist

python ../shared/data/unpack.py build/cifar10
dualsmooth train --config configs/cifar10.toml --out runs/cifar10
dualsmooth train --config configs/cifar10.toml --set classifier.seed=1 --out runs/second  # its experts are enough
python scripts/ship_bundle.py cifar10 runs/cifar10 --with runs/second=0.25,0.5,1
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dualsmooth.export import Pictures
from dualsmooth.export.sources import export_source
from dualsmooth.runtime.bundle.shipped import SHIPPED, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.files import write_atomically

INDICES = np.arange(0, 8000, 40)
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck")


def fashion_mnist() -> dict[str, Any]:
    """Float32 networks, and test images; see `export_run` for the settings."""
    dataset = load_dataset("fashion-mnist")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        x=dataset.images[INDICES, 0],
        y=dataset.labels[INDICES],
        index=INDICES,
        classes=np.array(dataset.classes),
    )
    write_atomically(SHIPPED_IMAGES, buffer.getvalue())
    return {"sure": (0.65, 0.5)}  # chosen on validation images: docs/sure.md


def cifar10() -> dict[str, Any]:
    """int8, a quarter of the size, for pictures of any size; the pictures beside it come from draw_pictures.py."""
    images = load_dataset("npz:build/cifar10/train.npz").images
    return {
        "precision": "int8",
        "pictures": Pictures.choose("CIFAR-10-JPEG (training images)", images),
        "resize": 32,
        "groups": {"animal": ANIMALS, "vehicle": VEHICLES},
        "sure": (0.6, 0.91),  # chosen on validation images: docs/sure.md
    }


SETTINGS = {"fashion-mnist": fashion_mnist, "cifar10": cifar10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SHIPPED)
    parser.add_argument("run", type=Path, help="a finished run; or a bundle, to put others beside its classifiers")
    parser.add_argument("--with", action="append", default=[], dest="others", help="as of `dualsmooth export`")
    args = parser.parse_args()
    row = SHIPPED[args.name]
    fresh = row.folder.with_name("fresh")
    command = shlex.join(["python", "scripts/ship_bundle.py", *sys.argv[1:]])
    export_source(args.run, fresh, command=command, others=args.others, **SETTINGS[row.name]())
    shutil.rmtree(row.folder, ignore_errors=True)
    fresh.rename(row.folder)
    size = sum(f.stat().st_size for f in [*row.folder.iterdir(), row.file])
    print(f"{row.folder} and {row.file}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
