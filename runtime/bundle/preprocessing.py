"""Preprocessing: how a picture of any size becomes the network's input. Part of a manifest, and of what certificates
name; `datasets.preprocess` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

RESAMPLING = ("bilinear", "bicubic", "lanczos", "box", "nearest")
"""How pixels are resampled, as Pillow does it to 8-bit pixels: with antialiasing where it makes pictures smaller."""
COLOURS = {1: "grey", 3: "rgb"}
"""What the channels of the input are, by their number; other inputs are no pictures."""
LARGEST_SIDE = 16384


def resizing(height: int, width: int) -> str:
    """What to do with a picture of another size than the input's, whose bundle has no preprocessing."""
    side = str(height) if height == width else f"{height},{width}"
    return f"resize it, or give the bundle its preprocessing: dualsmooth export BUNDLE --resize {side} --out NEW"


@dataclass(frozen=True)
class Preprocessing:
    """A picture that has not the input's size is resized, and the middle of that size is cut out of it.

    `shape`: [C,H,W] of the input; `resize`: what the shorter side of a picture becomes, in pixels, or its height and
    width; `resampling`: one of `RESAMPLING`.
    """

    shape: tuple[int, int, int]
    resize: int | tuple[int, int]
    resampling: str = "bilinear"

    @property
    def words(self) -> str:
        """What is done, in words."""
        channels, *sides = self.shape
        how = f"pixels ({self.resampling}), "
        if isinstance(self.resize, int):
            how = f"shorter side to {self.resize} {how}"
        else:
            how = f"to {self.resize[0]} x {self.resize[1]} {how}"
        cut = "" if self.resize == tuple(sides) else f"the middle {sides[0]} x {sides[1]}, "
        return f"{how}{cut}{COLOURS[channels]}"

    def to_dict(self) -> dict[str, Any]:
        """As the manifest has it, which states the shape beside it."""
        resize = self.resize if isinstance(self.resize, int) else list(self.resize)
        return {"resize": resize, "resampling": self.resampling, "colour": COLOURS.get(self.shape[0])}

    @classmethod
    def of(cls, stated: Any, shape: tuple[int, int, int], need: Callable[[bool, str], None]) -> Preprocessing:
        """What a file states, for inputs of `shape`; `need(good, what)` raises where it is not good."""
        need(isinstance(stated, Mapping), "preprocessing must be an object")
        resize, resampling = stated.get("resize"), stated.get("resampling")
        colour = COLOURS.get(shape[0])
        need(colour is not None, f"preprocessing is for 1 or 3 channels (grey, rgb); input.shape has {shape[0]}")
        need(stated.get("colour") == colour, f"preprocessing.colour must be {colour!r}, as the channels are")
        need(resampling in RESAMPLING, f"preprocessing.resampling must be one of {', '.join(RESAMPLING)}")
        sides = resize if isinstance(resize, list) else [resize, resize]
        need(len(sides) == 2 and all(map(_side, sides)), "preprocessing.resize must be a side, or [height, width]")
        high, wide = (int(side) for side in sides)
        large = high >= shape[1] and wide >= shape[2]
        need(large, f"preprocessing.resize must leave {shape[1]} x {shape[2]} pixels to cut out")
        return cls(shape, (high, wide) if isinstance(resize, list) else high, str(resampling))


def _side(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 1 <= value <= LARGEST_SIDE and value == int(value)
