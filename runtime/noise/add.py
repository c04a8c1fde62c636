"""Noise where it is used: drawn, scaled and added in one pass, by the mode that a certificate names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.table import STEPS, table_of

FLOAT, LATTICE, TABLE = "float", "lattice", "table"

_CHUNK = 1 << 16
"""Normals that are drawn, scaled and added while they are in the cache."""
_BATCH = 1 << 17
"""Values that are looked up at a time; a multiple of `_EACH`."""
_EACH = 4
"""Values of 16 bits in a word."""

Fill = Callable[[Any, Any, float, Any, Any], None]


class Mode(NamedTuple):
    """How noise is made of a stream. `lattice`: on Z/255, for images that lie there. `draws`: dtype of what it takes
    from the stream: normals, or uniform words. `fill`: (source, image, sigma, out, xp), as `add_noise`."""

    name: str
    lattice: bool
    draws: npt.DTypeLike
    fill: Fill


def float32_from_above(sigma: float) -> np.float32:
    """The smallest float32 that is not below `sigma`: more noise than stated makes no radius too large, less would."""
    near = np.float32(sigma)
    return near if float(near) >= sigma else np.nextafter(near, np.float32(np.inf))


def add_noise(
    generator: Any,
    image: npt.NDArray[np.float32],
    sigma: float,
    out: Any,
    mode: str = FLOAT,
    *,
    xp: Any = np,
) -> None:
    """Fill `out` [m,C,H,W] with `image` [C,H,W] (or an image a row, [m,C,H,W]) + sigma * standard normals.

    `generator`: a `Source`. In mode `float`, sigma is rounded up to float32. In mode `lattice`,
    round(255 (image + sigma z)) / 255 with float64 normals z; in mode `table`, (255 image + k) / 255 with k of the law
    of round(255 sigma z), which for images on the lattice comes to the same. `out` is contiguous, an array of `xp`
    (NumPy or CuPy). A stream's values do not depend on how it is cut into calls.
    """
    if xp is np:
        MODES[mode].fill(generator, image, sigma, out, np)
        return
    with out.device:
        if getattr(generator, "on_device", False):
            MODES[mode].fill(generator, xp.asarray(image), sigma, out, xp)
        else:  # made on the CPU and carried over
            made = np.empty(out.shape, np.float32)
            add_noise(generator, image, sigma, made, mode)
            out[...] = xp.asarray(made)


def _normals(source: Any, image: Any, sigma: float, out: Any, xp: Any) -> None:
    images = xp.broadcast_to(image, out.shape)
    for at in _rows(out, _CHUNK, xp):
        copies = out[at]
        source.standard_normal(dtype=np.float32, out=copies)
        xp.multiply(copies, float32_from_above(sigma), out=copies)
        xp.add(copies, images[at], out=copies)


def _rounded(source: Any, image: Any, sigma: float, out: Any, xp: Any) -> None:
    images, drawn = xp.broadcast_to(image, out.shape), None
    for at in _rows(out, _CHUNK, xp):
        drawn = xp.empty(out[at].shape) if drawn is None else drawn[: len(out[at])]
        source.standard_normal(dtype=np.float64, out=drawn)
        xp.multiply(drawn, STEPS * sigma, out=drawn)
        xp.rint(drawn, out=drawn)
        xp.add(drawn, xp.rint(images[at] * np.float64(STEPS)), out=drawn)
        xp.divide(drawn, STEPS, out=out[at], casting="same_kind")


def _looked_up(source: Any, image: Any, sigma: float, out: Any, xp: Any) -> None:
    """Each row takes whole words: value i of a row is quarter i mod 4, the lowest first, of its word i / 4."""
    table = table_of(sigma, xp, "" if xp is np else str(out.device))
    pixels = xp.broadcast_to(xp.rint(image * np.float32(STEPS)).astype(np.int16), out.shape).reshape(len(out), -1)
    rows = out.reshape(len(out), -1)
    size = rows.shape[1]
    room = np.empty(min(out.size, _BATCH), np.intp) if xp is np else None
    for at in _rows(out, _BATCH, xp):
        for start in range(0, size, _BATCH if xp is np else size):
            copies = rows[at, start : start + _BATCH] if xp is np else rows
            each = -(-copies.shape[1] // _EACH)
            bits = _quarters(source.words(len(copies) * each, xp)).reshape(len(copies), -1)[:, : copies.shape[1]]
            steps = table.draw(bits, source.rest.words, xp, room).reshape(copies.shape)
            xp.add(steps, pixels[at, start : start + copies.shape[1]], out=steps)
            xp.divide(steps, STEPS, out=copies, dtype=np.float32)


def _quarters(words: Any) -> Any:
    """uint16 [4 n] of words [n], the lowest 16 bits first on every machine."""
    return words.astype("<u8", copy=False).view("<u2")


def _rows(out: Any, values: int, xp: Any) -> list[slice]:
    """Parts of about so many values; one on a device."""
    rows = max(1, values // max(1, out[0].size)) if len(out) and xp is np else max(1, len(out))
    return [slice(start, min(start + rows, len(out))) for start in range(0, len(out), rows)]


MODES = {
    mode.name: mode
    for mode in (
        Mode(FLOAT, False, np.float32, _normals),
        Mode(LATTICE, True, np.float64, _rounded),
        Mode(TABLE, True, np.uint64, _looked_up),
    )
}


def on_lattice(image: npt.NDArray[np.float32]) -> bool:
    """Whether each value of `image` is the float32 nearest to a k / 255, k an integer."""
    return not _off_lattice(image).any()


def require_lattice(image: npt.NDArray[np.float32]) -> None:
    """Raises `InputError` unless each value of `image` is the float32 nearest to a k / 255, k an integer."""
    off = _off_lattice(image)
    if off.any():
        raise InputError(
            f"lattice noise needs an image on the lattice k/255, but {int(off.sum())} values are off it, e.g. "
            f"{image[off].flat[0]:.8g}; pass the 8-bit image (uint8), or use float noise"
        )


def _off_lattice(image: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    steps = np.rint(image * np.float32(STEPS))
    off: npt.NDArray[np.bool_] = image != steps.astype(np.float32) / np.float32(STEPS)
    return off
