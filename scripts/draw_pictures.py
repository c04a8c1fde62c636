"""Draws the colour pictures that ship beside the CIFAR-10 bundle: no picture of CIFAR-10 may be shipped.

Ten vehicles and animals in front of sky, sea, grass or road, drawn at 256 x 256 and reduced to 32 x 32; and one
photograph, given as a file: Chelsea the cat, released to the public domain (CC0) by Stéfan van der Walt, from
scikit-image's `data/chelsea.png`. The networks never saw drawings: what they make of them is part of the demo.

    python scripts/draw_pictures.py --cat chelsea.png --out runtime/data/cifar10-pictures.npz --sheet build/sheet.png
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dualsmooth.runtime.files import write_atomically

SIZE, SMALL = 256, 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Colour = tuple[int, int, int]
SKY, PALE, SEA, DEEP = (120, 170, 225), (205, 225, 245), (70, 120, 165), (30, 70, 115)
GRASS, MEADOW, ROAD, STREET = (95, 130, 60), (60, 95, 40), (135, 135, 135), (95, 95, 98)
WHITE, GREY, DARK, TYRE, GLASS = (240, 242, 245), (165, 170, 178), (60, 62, 68), (28, 28, 30), (150, 185, 205)
RED, BLUE, YELLOW, BROWN, TAN, GREEN = (
    (190, 40, 35), (45, 80, 170), (225, 180, 50), (115, 75, 45), (165, 120, 75), (80, 140, 45),
)  # fmt: skip


class Sheet:
    """A picture that is drawn on, in units of its side."""

    def __init__(self, top: Sequence[Colour], bottom: Sequence[Colour], horizon: float = 1.0) -> None:
        rows = np.arange(SIZE) / SIZE
        part = np.empty((SIZE, SIZE, 3))
        for (first, last), chosen, share in (
            (top, rows < horizon, rows / horizon),
            (bottom, rows >= horizon, (rows - horizon) / max(1 - horizon, 1e-6)),
        ):
            mixed = np.outer(1 - share, first) + np.outer(share, last)
            part[chosen] = mixed[chosen][:, None, :]
        grain = np.random.default_rng(0).normal(0, 9, (SIZE // 4, SIZE // 4)).repeat(4, 0).repeat(4, 1)
        self.picture = Image.fromarray((part + grain[..., None]).clip(0, 255).astype(np.uint8))
        self.picture = self.picture.filter(ImageFilter.GaussianBlur(3))
        self.pen = ImageDraw.Draw(self.picture)

    def shape(self, colour: Colour, *points: tuple[float, float]) -> None:
        self.pen.polygon([(x * SIZE, y * SIZE) for x, y in points], fill=colour)

    def box(self, colour: Colour, x: float, y: float, width: float, height: float, round_by: float = 0.0) -> None:
        place = (x * SIZE, y * SIZE, (x + width) * SIZE, (y + height) * SIZE)
        self.pen.rounded_rectangle(place, round_by * SIZE, fill=colour)

    def oval(self, colour: Colour, x: float, y: float, a: float, b: float) -> None:
        self.pen.ellipse(((x - a) * SIZE, (y - b) * SIZE, (x + a) * SIZE, (y + b) * SIZE), fill=colour)

    def line(self, colour: Colour, width: float, *points: tuple[float, float]) -> None:
        self.pen.line([(x * SIZE, y * SIZE) for x, y in points], fill=colour, width=round(width * SIZE), joint="curve")

    def wheel(self, x: float, y: float, radius: float) -> None:
        self.oval(TYRE, x, y, radius, radius)
        self.oval(GREY, x, y, radius * 0.5, radius * 0.5)


def airliner() -> Sheet:
    s = Sheet((SKY, PALE), (SKY, PALE))
    s.shape(GREY, (0.46, 0.52), (0.30, 0.80), (0.37, 0.80), (0.62, 0.54))
    s.shape(GREY, (0.50, 0.46), (0.42, 0.24), (0.48, 0.24), (0.64, 0.46))
    s.shape(WHITE, (0.06, 0.47), (0.12, 0.44), (0.80, 0.42), (0.95, 0.38), (0.93, 0.47), (0.80, 0.55), (0.16, 0.56))
    s.shape(BLUE, (0.80, 0.44), (0.92, 0.20), (0.97, 0.20), (0.93, 0.45))
    s.line(DARK, 0.012, (0.14, 0.485), (0.80, 0.475))
    return s


def jet_from_below() -> Sheet:
    s = Sheet(((75, 130, 200), SKY), (SKY, PALE))
    for side in (-1, 1):
        wing = ((0.0, 0.30), (0.05, 0.36), (0.42, 0.62), (0.42, 0.69), (0.05, 0.62), (0.0, 0.62))
        tail = ((0.0, 0.74), (0.17, 0.88), (0.17, 0.93), (0.0, 0.88))
        for part in (wing, tail):
            s.shape(DARK, *((0.5 + side * x, y) for x, y in part))
    s.oval(DARK, 0.50, 0.50, 0.055, 0.42)
    s.oval(GREY, 0.50, 0.45, 0.03, 0.30)
    return s


def saloon(colour: Colour) -> Sheet:
    s = Sheet((PALE, (190, 195, 190)), (ROAD, STREET), 0.55)
    s.oval(DARK, 0.5, 0.83, 0.44, 0.04)
    s.shape(colour, (0.22, 0.52), (0.34, 0.33), (0.66, 0.33), (0.80, 0.52))
    s.shape(GLASS, (0.28, 0.51), (0.36, 0.37), (0.49, 0.37), (0.49, 0.51))
    s.shape(GLASS, (0.52, 0.51), (0.52, 0.37), (0.64, 0.37), (0.73, 0.51))
    s.box(colour, 0.05, 0.50, 0.90, 0.24, 0.07)
    s.box(YELLOW, 0.05, 0.56, 0.05, 0.05, 0.02)
    s.box(DARK, 0.08, 0.70, 0.84, 0.04)
    s.wheel(0.25, 0.74, 0.11)
    s.wheel(0.75, 0.74, 0.11)
    return s


def lorry() -> Sheet:
    s = Sheet((SKY, PALE), (ROAD, STREET), 0.62)
    s.box(WHITE, 0.05, 0.18, 0.58, 0.52)
    s.box(GREY, 0.05, 0.18, 0.58, 0.04)
    s.box(RED, 0.65, 0.34, 0.29, 0.38, 0.04)
    s.shape(GLASS, (0.74, 0.38), (0.90, 0.38), (0.93, 0.52), (0.74, 0.52))
    s.box(DARK, 0.05, 0.70, 0.89, 0.06)
    for x in (0.16, 0.34, 0.80):
        s.wheel(x, 0.78, 0.085)
    return s


def tipper() -> Sheet:
    s = Sheet((PALE, (220, 215, 200)), ((150, 130, 100), (115, 95, 70)), 0.66)
    s.shape(YELLOW, (0.36, 0.30), (0.98, 0.24), (0.92, 0.62), (0.40, 0.62))
    s.shape((190, 145, 30), (0.36, 0.30), (0.98, 0.24), (0.97, 0.30), (0.37, 0.36))
    s.box(YELLOW, 0.05, 0.36, 0.28, 0.36, 0.03)
    s.box(GLASS, 0.08, 0.40, 0.18, 0.14)
    s.box(DARK, 0.05, 0.66, 0.90, 0.08)
    for x in (0.18, 0.62, 0.82):
        s.wheel(x, 0.78, 0.10)
    return s


def freighter() -> Sheet:
    s = Sheet((SKY, PALE), (SEA, DEEP), 0.58)
    for number, colour in enumerate((RED, BLUE, GREEN, YELLOW, RED)):
        s.box(colour, 0.14 + 0.10 * number, 0.40, 0.09, 0.14)
    s.box(WHITE, 0.68, 0.24, 0.15, 0.30)
    s.box(DARK, 0.72, 0.14, 0.06, 0.10)
    s.shape((120, 40, 35), (0.03, 0.53), (0.97, 0.53), (0.90, 0.72), (0.12, 0.72))
    s.shape(DARK, (0.03, 0.53), (0.97, 0.53), (0.95, 0.59), (0.05, 0.59))
    s.box((190, 210, 225), 0.10, 0.72, 0.82, 0.02)
    return s


def sailing_boat() -> Sheet:
    s = Sheet((SKY, PALE), (SEA, DEEP), 0.64)
    s.shape(WHITE, (0.48, 0.06), (0.48, 0.62), (0.14, 0.62))
    s.shape((225, 222, 210), (0.53, 0.12), (0.53, 0.62), (0.84, 0.62))
    s.box(BROWN, 0.49, 0.05, 0.025, 0.64)
    s.shape((235, 235, 235), (0.12, 0.67), (0.90, 0.67), (0.78, 0.80), (0.24, 0.80))
    s.shape(BLUE, (0.15, 0.71), (0.87, 0.71), (0.85, 0.74), (0.18, 0.74))
    return s


def four_legs(colour: Colour, neck: Sequence[tuple[float, float]]) -> Sheet:
    """The body of a grazing animal; `neck` goes from the shoulder to the muzzle and back."""
    s = Sheet(((150, 180, 120), GRASS), (GRASS, MEADOW), 0.45)
    shade: Colour = (int(colour[0] * 0.75), int(colour[1] * 0.75), int(colour[2] * 0.75))
    for x in (0.40, 0.74):
        s.line(shade, 0.05, (x, 0.55), (x + 0.02, 0.74), (x, 0.92))
    s.oval(colour, 0.56, 0.50, 0.27, 0.15)
    for x in (0.34, 0.80):
        s.line(colour, 0.055, (x, 0.52), (x - 0.02, 0.74), (x, 0.94))
    s.shape(colour, *neck)
    return s


def horse() -> Sheet:
    neck = ((0.28, 0.54), (0.20, 0.24), (0.07, 0.36), (0.03, 0.31), (0.17, 0.11), (0.27, 0.12), (0.50, 0.40))
    s = four_legs(BROWN, neck)
    s.shape(TYRE, (0.21, 0.09), (0.29, 0.12), (0.50, 0.38), (0.42, 0.40))
    s.shape(TYRE, (0.80, 0.42), (0.92, 0.50), (0.90, 0.76), (0.84, 0.60))
    return s


def deer() -> Sheet:
    neck = ((0.30, 0.52), (0.25, 0.28), (0.12, 0.34), (0.09, 0.29), (0.22, 0.17), (0.33, 0.19), (0.45, 0.42))
    s = four_legs(TAN, neck)
    for side in (-1, 1):
        s.line(BROWN, 0.022, (0.27, 0.18), (0.27 + side * 0.08, 0.10), (0.27 + side * 0.07, 0.01))
        s.line(BROWN, 0.018, (0.27 + side * 0.08, 0.10), (0.27 + side * 0.15, 0.04))
    s.oval(WHITE, 0.83, 0.46, 0.03, 0.05)
    return s


def frog() -> Sheet:
    s = Sheet(((110, 95, 70), (90, 75, 50)), ((90, 75, 50), (70, 60, 40)), 0.5)
    for side in (-1, 1):
        s.oval((60, 115, 35), 0.5 + side * 0.27, 0.64, 0.17, 0.13)
        s.line(GREEN, 0.06, (0.5 + side * 0.22, 0.68), (0.5 + side * 0.36, 0.86), (0.5 + side * 0.22, 0.90))
    s.oval(GREEN, 0.5, 0.58, 0.25, 0.27)
    s.oval((170, 190, 120), 0.5, 0.70, 0.16, 0.14)
    s.oval((95, 155, 55), 0.5, 0.38, 0.24, 0.16)
    for side in (-1, 1):
        s.oval((95, 155, 55), 0.5 + side * 0.16, 0.25, 0.075, 0.075)
        s.oval(TYRE, 0.5 + side * 0.16, 0.25, 0.04, 0.045)
    s.line(MEADOW, 0.015, (0.32, 0.43), (0.5, 0.47), (0.68, 0.43))
    return s


def bird() -> Sheet:
    s = Sheet((PALE, (225, 232, 225)), ((225, 232, 225), (190, 200, 180)), 0.6)
    s.line(BROWN, 0.04, (0.0, 0.86), (0.5, 0.80), (1.0, 0.84))
    s.shape((75, 60, 50), (0.60, 0.60), (0.95, 0.74), (0.92, 0.80), (0.55, 0.72))
    s.oval((150, 105, 70), 0.48, 0.54, 0.24, 0.20)
    s.oval((205, 120, 70), 0.40, 0.60, 0.15, 0.14)
    s.oval((120, 85, 60), 0.31, 0.33, 0.13, 0.12)
    s.shape(YELLOW, (0.20, 0.30), (0.06, 0.35), (0.20, 0.38))
    s.oval(TYRE, 0.28, 0.31, 0.025, 0.025)
    s.shape((90, 70, 55), (0.42, 0.42), (0.74, 0.56), (0.62, 0.66), (0.44, 0.58))
    s.line(DARK, 0.015, (0.44, 0.72), (0.43, 0.82))
    s.line(DARK, 0.015, (0.52, 0.72), (0.53, 0.81))
    return s


DRAWINGS: tuple[tuple[str, Callable[[], Sheet]], ...] = (
    ("airplane", airliner),
    ("ship", freighter),
    ("automobile", lambda: saloon(RED)),
    ("truck", lorry),
    ("horse", horse),
    ("airplane", jet_from_below),
    ("frog", frog),
    ("automobile", lambda: saloon(BLUE)),
    ("ship", sailing_boat),
    ("bird", bird),
    ("truck", tipper),
    ("deer", deer),
)


def photograph(path: Path) -> Image.Image:
    """The middle square of a photograph."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cat", type=Path, required=True, help="chelsea.png of scikit-image")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="all pictures, enlarged, as one")
    args = parser.parse_args()
    pictures = [(name, draw().picture) for name, draw in DRAWINGS]
    pictures.insert(4, ("cat", photograph(args.cat)))
    small = [(name, picture.resize((SMALL, SMALL), Image.Resampling.LANCZOS)) for name, picture in pictures]
    x = np.stack([np.asarray(picture) for _, picture in small])
    y = np.array([CLASSES.index(name) for name, _ in small])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y, classes=np.array(CLASSES))
    write_atomically(args.out, buffer.getvalue())
    if args.sheet:
        large = [np.asarray(p.resize((SIZE, SIZE), Image.Resampling.NEAREST)) for _, p in small]
        large += [np.full_like(large[0], 255)] * (-len(large) % 7)
        Image.fromarray(np.vstack([np.hstack(large[k : k + 7]) for k in range(0, len(large), 7)])).save(args.sheet)


if __name__ == "__main__":
    main()
