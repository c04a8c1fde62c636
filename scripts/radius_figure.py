"""The picture of docs/choosing.md: what noise does to an image, and how large changes of a given L2 norm look.

python scripts/radius_figure.py --out docs/images/radius.png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dualsmooth.runtime.bundle.shipped import DATA
from dualsmooth.runtime.files import write_atomically

Floats = npt.NDArray[np.float64]
CELL, GAP, TEXT = 176, 14, 44
INK, PAPER = (30, 34, 40), (255, 255, 255)
SIGMAS, RADII = (0.25, 0.5, 1.0), (0.25, 0.5, 1.0)


def noisy(image: Floats, sigma: float) -> Floats:
    """`image` [H,W,C] in [0, 1] and Gaussian noise; what is out of range is cut off for the eye only."""
    return np.asarray(image + sigma * np.random.default_rng(1).normal(size=image.shape), np.float64)


def brighter(image: Floats, radius: float) -> Floats:
    """Every value moved by the same amount, `radius` in all (L2)."""
    return np.asarray(image + radius / np.sqrt(image.size), np.float64)


def grainy(image: Floats, radius: float) -> Floats:
    """A random change of length `radius`."""
    change = np.random.default_rng(2).normal(size=image.shape)
    return np.asarray(image + radius * change / np.linalg.norm(change), np.float64)


def patched(image: Floats, radius: float, side: int = 4) -> Floats:
    """A square of `side` pixels darkened or lightened until the change has length `radius`, or is black or white."""
    height, width, _ = image.shape
    rows, columns = slice(height // 2 - side // 2, height // 2 + side // 2), slice(width // 3, width // 3 + side)
    changed = image.copy()
    part = changed[rows, columns]
    towards = (0.0 if part.mean() > 0.5 else 1.0) - part
    changed[rows, columns] = part + towards * min(1.0, radius / float(np.linalg.norm(towards)))
    return changed


def tile(image: Floats) -> Image.Image:
    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST)


def figure(image: Floats) -> Image.Image:
    """A row of noise levels, and a row for each kind of change; each column a size."""
    rows = [
        [("the image", image), *((f"one pass sees: noise {s:g}", noisy(image, s)) for s in SIGMAS)],
        [("the image", image), *((f"all brighter, r = {r:g}", brighter(image, r)) for r in RADII)],
        [("the image", image), *((f"at random, r = {r:g}", grainy(image, r)) for r in RADII)],
        [("the image", image), *((f"one patch, r = {r:g}", patched(image, r)) for r in RADII)],
    ]
    width, height = len(rows[0]) * (CELL + GAP) + GAP, len(rows) * (CELL + TEXT) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, cells in enumerate(rows):
        for column, (caption, picture) in enumerate(cells):
            x, y = GAP + column * (CELL + GAP), GAP + row * (CELL + TEXT)
            sheet.paste(tile(picture), (x, y))
            pen.text((x, y + CELL + 6), caption, fill=INK, font=font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=int, default=2, help="which of the shipped colour pictures")
    args = parser.parse_args()
    with np.load(DATA / "cifar10-pictures.npz") as pictures:
        image = pictures["x"][args.picture] / 255.0
    buffer = io.BytesIO()
    figure(image).save(buffer, "PNG", optimize=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, buffer.getvalue())


if __name__ == "__main__":
    main()
