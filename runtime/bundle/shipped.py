"""What ships in the package: a bundle, and real images to certify with it."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
SHIPPED_BUNDLE = DATA / "fashion-mnist"
SHIPPED_IMAGES = DATA / "fashion-mnist-test-200.npz"
"""200 Fashion-MNIST test images, `npz:PATH` as a data set."""
