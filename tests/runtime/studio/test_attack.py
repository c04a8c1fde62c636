"""Directions against networks whose weakness is known in closed form, and pictures moved by what was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.studio.attack import apart, by_votes, moved, stepped, towards

IMAGE = np.array([[[200, 40]]], np.float32) / np.float32(255)


def nothing() -> None:
    """Somebody waits."""


def test_votes_find_the_way_to_the_boundary(tmp_path: Path) -> None:
    """The classifier votes 1 where the first pixel is at least .3 or .4: the way out is straight down along it."""
    with ds.load(toys.two_levels(tmp_path / "bundle"), threads=1) as smoother:
        direction, passes = by_votes(smoother, IMAGE, [1], 1, 0.3, nothing)
        assert passes == 4_000
        assert np.linalg.norm(direction) == pytest.approx(1)
        assert direction[0, 0, 0] < -0.95
        with pytest.raises(ds.InputError, match=r"all .* noisy copies vote for class 0"):
            by_votes(smoother, np.zeros((1, 1, 2), np.float32), [0], 1, 0.3, _far(smoother))


def _far(smoother: ds.Smoother):
    """Have every copy vote for class 0."""
    smoother.engine.votes = lambda model, batch, sigma, width: np.zeros(len(batch), np.int64)  # type: ignore[method-assign]
    return nothing


def test_the_nearest_picture_of_another_class() -> None:
    others = np.array([[[[20, 40]]], [[[60, 40]]], [[[190, 40]]], [[[200, 40]]]], np.uint8)
    direction, number = towards(IMAGE, others, [0, 0, 1, 0], [1])
    assert number == 1  # not the one of its own class, nor itself
    assert direction.reshape(2) == pytest.approx([-1, 0], abs=1e-6)
    with pytest.raises(ds.InputError, match="no picture of another class"):
        towards(IMAGE, others[2:3], [1], [1])
    with pytest.raises(ds.InputError, match="no picture of another class"):
        towards(IMAGE, others[:0], [], [1])


def test_a_group_is_left_for_a_class_outside_of_it() -> None:
    others = np.array([[[[190, 40]]], [[[60, 40]]]], np.uint8)
    assert towards(IMAGE, others, [2, 0], [1])[1] == 0
    assert towards(IMAGE, others, [2, 0], [1, 2])[1] == 1


def test_moved_pictures_are_8_bit_and_as_near_as_was_asked() -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (3, 16, 16)).astype(np.float32) / np.float32(255)
    direction = rng.normal(size=image.shape)
    direction /= np.linalg.norm(direction)
    last = 0.0
    for distance in (0.02, 0.1, 0.5, 1.0, 3.0):
        there = moved(image, direction, distance)
        assert np.array_equal(there, np.rint(255 * there).astype(np.float32) / np.float32(255))
        assert there.min() >= 0
        assert there.max() <= 1
        assert last < apart(image, there) <= distance
        assert apart(image, there) > 0.97 * distance - 1 / 255
        last = apart(image, there)
    assert np.array_equal(stepped(image, np.zeros(image.shape)), image)


def test_equal_changes_of_many_pixels_do_not_all_come_at_once() -> None:
    image = np.full((1, 20, 20), 0.4, np.float32)
    image = np.rint(255 * image).astype(np.float32) / np.float32(255)
    direction = np.full(image.shape, 1 / 20)
    for distance in np.linspace(0.02, 0.3, 15):
        assert apart(image, moved(image, direction, distance)) > distance - 1 / 255


def test_what_leaves_the_range_of_pixels_stops_there() -> None:
    there = moved(IMAGE, np.array([[[0.0, -1.0]]]), 5.0)
    assert there.reshape(2).tolist() == [IMAGE[0, 0, 0], 0]
