"""What ships in the package: bundles by name, and labelled images to try them on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualsmooth.runtime.errors import one_of

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Shipped:
    """A bundle that ships: its name, which is that of its folder in `DATA`, and the file of labelled images there to
    try it on (`npz:PATH` as a data set)."""

    name: str
    images: str

    @property
    def folder(self) -> Path:
        return DATA / self.name

    @property
    def file(self) -> Path:
        """Of its images."""
        return DATA / self.images


SHIPPED = {
    row.name: row
    for row in (
        Shipped("fashion-mnist", images="fashion-mnist-test-200.npz"),
        Shipped("cifar10", images="cifar10-pictures.npz"),
    )
}
"""By the name that `load`, and every command that takes a bundle, knows it by."""
SHIPPED_NAMES = one_of(SHIPPED)
SHIPPED_BUNDLE = SHIPPED["fashion-mnist"].folder
SHIPPED_IMAGES = SHIPPED["fashion-mnist"].file
"""200 Fashion-MNIST test images."""
