"""Exhaustive search on toys: nothing is found inside the certified radius; an overstated one is broken."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import attack_toys
import numpy as np
import pytest
import toys
from attack_toys import FACTORS, Toy, broken, disc, search

import dualsmooth as ds

SIMPLE = Toy((0.25, 0.5, 1.0), 0.5, (0.2, 0.9), ((0.3, 2.0), (0.4, 2.0), (0.1, 0.9)))


def test_decisions_by_hand() -> None:
    """Median route: u against the cuts. Label: the likeliest strip of t at the route's level."""
    t, u = np.array([0.1, 1.0, 1.0, 0.5]), np.array([0.0, 0.0, 0.5, 1.2])
    assert SIMPLE.decisions(t, u, "median").tolist() == [0, 1, 1, 0]
    level_2 = toys.image(0.5, 1.2)[0, 0]
    shares = attack_toys._shares(np.array([level_2[0]]), (0.1, 0.9), 1.0)[0]
    assert shares.argmax() == 0  # wide noise: the narrow middle strip is less likely than the half-line below


def test_the_grid_reaches_the_stated_radius_and_no_further() -> None:
    t, u = disc(0.3, 0.4, 0.25)
    distance = np.hypot(t - 0.3, u - 0.4)
    assert distance.max() == pytest.approx(0.25, abs=1e-12)
    assert len(t) == attack_toys.RADII * attack_toys.ANGLES


def certified(t: float, u: float) -> ds.Certificate:
    with tempfile.TemporaryDirectory() as folder:
        smoother = ds.load(SIMPLE.write(Path(folder) / "toy"), threads=1)
        return smoother.certify(toys.image(t, u), alpha=1e-6, budget=ds.Fixed(5000), seed=1)


def test_an_overstated_certificate_is_broken() -> None:
    """The search can fail: what is certified survives, half as much again does not."""
    made = certified(0.8, 0.0)
    assert made.label == 1
    assert not broken(SIMPLE, made, 0.8, 0.0, 0.999)
    overstated = dataclasses.replace(made, outcome=dataclasses.replace(made.outcome, radius=1.5 * made.radius))
    assert broken(SIMPLE, overstated, 0.8, 0.0, 0.999)


def test_no_certificate_of_random_toys_is_broken() -> None:
    found = [hits for _, hits in search(12, seed=5)]
    inside, beyond = zip(*[(hits[0], hits[-1]) for hits in found], strict=True)
    assert FACTORS[0] < 1 < FACTORS[-1]
    assert len(found) >= 10
    assert not any(inside)
    assert any(beyond)


@pytest.mark.slow
def test_no_certificate_of_many_random_toys_is_broken() -> None:
    assert not any(hits[0] for _, hits in search(150, seed=6))
