"""PNG, JPEG and NPY bytes through the loader of the command line, and other formats under these names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
from fuzz.harness import attempt, fuzz
from fuzz.mutations import damaged
from hypothesis import strategies as st

from dualsmooth.runtime.datasets.single_images import read_image

SHAPES = [(1, 5, 7), (3, 5, 7), (4, 5, 7)]


def pictures() -> list[bytes]:
    """Small pictures of many modes and formats; ICO, TGA and EPS are not read."""
    made = []
    rng = np.random.default_rng(0)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "F", "CMYK"):
        picture = PIL.Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
        for format in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM", "ICO", "TGA", "EPS"):
            out = io.BytesIO()
            try:
                picture.save(out, format)
            except (OSError, ValueError, KeyError):
                continue
            made += [out.getvalue()] * (4 if format in ("PNG", "JPEG") else 1)
    interlaced = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).save(interlaced, "JPEG", progressive=True)
    return [*made, interlaced.getvalue()]


def arrays() -> list[bytes]:
    made = []
    for array in (
        np.zeros((1, 5, 7), np.uint8),
        np.full((3, 5, 7), 0.5, np.float32),
        np.zeros((5, 7), np.uint8),
        np.zeros(0, np.float32),
        np.zeros((5, 7)),
        np.asfortranarray(np.zeros((3, 5, 7), np.float32)),
        np.array(3, np.uint8),
        np.array([{}], object),
        np.zeros(2, [("a", "u1"), ("b", "f4", 2)]),
    ):
        out = io.BytesIO()
        np.save(out, array, allow_pickle=True)
        made.append(out.getvalue())
    archive = io.BytesIO()
    np.savez(archive, x=np.zeros((1, 5, 7), np.uint8))
    return [*made, archive.getvalue(), b"PK\x03\x04", b"\x80\x04."]


PICTURES, ARRAYS = pictures(), arrays()
HEADERS = st.builds(
    lambda descr, order, shape, version: header(
        f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}", version
    ),
    st.sampled_from(
        ["'<f4'", "'|u1'", "'>f4'", "'|O'", "'<f4,<f4'", "[('a', '<f4')]", "'(1000000000,)f4'", "'M8[ns]'", "7", "'V8'"]
    ),
    st.sampled_from(["False", "True", "0", "None"]),
    st.sampled_from(
        [
            "(1, 5, 7)",
            "(5, 7)",
            "(3, 5, 7)",
            "()",
            "(-1,)",
            "(1000000000000,)",
            "(9223372036854775807, 2)",
            "(0, 1000000000000)",
            "5",
            "[5]",
            "(5.0,)",
            "((5,),)",
            "(" * 300,
            "(1,) * 9999999",
            "(True,)",
        ]
    ),
    st.sampled_from([1, 2, 3, 9]),
)


def header(text: str, version: int) -> bytes:
    """An NPY file with any text as its header, and a little data."""
    raw = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + bytes(140)


@fuzz(
    "image files",
    raw=st.one_of(damaged(lambda: PICTURES, most=4), damaged(lambda: PICTURES, most=1), st.binary(max_size=64)),
    suffix=st.sampled_from(["png", "jpg", "JPEG", "tiff", ""]),
    shape=st.sampled_from(SHAPES),
    share=0.6,
)
def test_pictures(raw: bytes, suffix: str, shape: tuple[int, int, int], folder: Path) -> None:
    check(folder / f"image.{suffix}", raw, shape)


@fuzz(
    "image files",
    raw=st.one_of(damaged(lambda: ARRAYS, most=3), HEADERS),
    shape=st.sampled_from(SHAPES),
    share=0.4,
)
def test_arrays(raw: bytes, shape: tuple[int, int, int], folder: Path) -> None:
    check(folder / "image.npy", raw, shape)


MAGIC = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*", b"GIF8", b"BM"),
    *(b"RIFF", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\xffO\xffQ", b"\0\0\0\x0cjP"),
)


def check(path: Path, raw: bytes, shape: tuple[int, int, int]) -> None:
    path.write_bytes(raw)
    image = attempt(read_image, path, shape)
    assert image.shape == shape
    assert image.dtype in (np.uint8, np.float32)
    if path.suffix != ".npy":
        assert raw.startswith(MAGIC)


def test_the_samples_are_good(tmp_path: Path) -> None:
    """Otherwise the targets above show nothing."""
    for number, raw in enumerate((PICTURES[0], PICTURES[-1])):
        (tmp_path / f"{number}.png").write_bytes(raw)
        assert read_image(tmp_path / f"{number}.png", (3, 5, 7)).shape == (3, 5, 7)
