"""Arrays as images: every dtype, shape and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import VALUES
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import dualsmooth as ds

SHAPES = st.one_of(st.just(toys.SHAPE), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
DTYPES = st.one_of(
    st.sampled_from(["float32", "uint8"]),
    arrays.scalar_dtypes(),
    arrays.nested_dtypes(max_itemsize=64),
    st.just(np.dtype(object)),
)
UNIT = st.floats(0, 1, width=32)
EDGES = st.sampled_from([np.float32(v) for v in ("nan", "inf", "-inf", "-0.0", "1", "1.0000001", "1e-45", "-1e-45")])
IMAGES = st.one_of(
    arrays.arrays(DTYPES, SHAPES),
    arrays.arrays(np.float32, st.just(toys.SHAPE), elements=UNIT | EDGES),
    arrays.arrays(np.uint8, st.just(toys.SHAPE)),
    VALUES,
    st.sampled_from(
        [
            None,
            "image",
            b"\0\1",
            7,
            [[0.5, 0.5]],
            [[[0, 1]]],
            [[1], [1, 2]],
            object(),
            toys,
            np.ma.masked_all((1, 1, 2)),
        ]
    ),
)
LAYOUTS = st.sampled_from(
    [lambda a: a, np.asfortranarray, lambda a: a[..., ::-1], lambda a: a.astype(a.dtype.newbyteorder())]
)


class Real:
    smoother: ds.Smoother


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> None:
    path = toys.write_bundle(folder / "b", sigmas=(0.25,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[0.2])
    Real.smoother = ds.load(path, threads=1)


@fuzz("images", image=IMAGES, layout=LAYOUTS)
def test_accepted_images_are_float32_between_0_and_1(image: Any, layout: Any) -> None:
    if isinstance(image, np.ndarray) and image.ndim:
        image = layout(image)
    pixels = attempt(Real.smoother.check_image, image)
    assert pixels.dtype == np.float32
    assert pixels.dtype.isnative
    assert pixels.shape == toys.SHAPE
    assert pixels.flags.c_contiguous
    assert 0 <= pixels.min() <= pixels.max() <= 1
    given = np.asarray(image)
    assert np.array_equal(pixels, given.astype(np.float32) / np.float32(255) if given.dtype == np.uint8 else given)
    made = Real.smoother.certify(image, budget=ds.Fixed(16, n0=2), seed=1)
    assert ds.Certificate.from_json(made.to_json()) == made
