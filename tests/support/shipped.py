"""The shipped test images in the layouts of whole data sets, for tests of what asks for those."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualsmooth.runtime.bundle.shipped import SHIPPED_IMAGES


def idx(array: np.ndarray) -> bytes:
    """A uint8 array as an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def fashion_mnist(root: Path) -> Path:
    """`root`, for DUALSMOOTH_DATA: its `fashion-mnist` holds the shipped images as both splits."""
    folder = root / "fashion-mnist"
    folder.mkdir(parents=True)
    with np.load(SHIPPED_IMAGES) as arrays:
        images, labels = arrays["x"], arrays["y"].astype(np.uint8)
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root
