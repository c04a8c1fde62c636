"""Replace the bundle that ships in the package, and the 200 test images beside it.

dualsmooth train --dataset fashion-mnist --out runs/fashion-mnist
python scripts/ship_bundle.py runs/fashion-mnist
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

import numpy as np

from dualsmooth.export import export_run
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.files import write_atomically

INDICES = np.arange(0, 8000, 40)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    SHIPPED_BUNDLE.parent.mkdir(exist_ok=True)
    fresh = SHIPPED_BUNDLE.with_name("fresh")
    command = f"python scripts/ship_bundle.py {args.run}"
    export_run(args.run, fresh, command=command)
    shutil.rmtree(SHIPPED_BUNDLE, ignore_errors=True)
    fresh.rename(SHIPPED_BUNDLE)
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
    size = sum(f.stat().st_size for f in [*SHIPPED_BUNDLE.iterdir(), SHIPPED_IMAGES])
    print(f"{SHIPPED_BUNDLE} and {SHIPPED_IMAGES}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
