"""One call, one number: the same as a certificate says, and none where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import toys

import dualsmooth as ds

BUDGET = ds.Fixed(500)
CLEAR, BESIDE = toys.image(0.9, 0.2), toys.image(0.3, 0.2)
"""Far from the cut of level 0, and on it."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.two_levels(tmp_path_factory.mktemp("component") / "bundle")


def test_it_is_the_radius_of_the_certificate(bundle: Path) -> None:
    with ds.load(bundle, threads=1) as smoother:
        for sigma, rule in ((None, "interval"), (0.25, "single:0.25"), (0.5, "single:0.5")):
            expected = smoother.certify(CLEAR, rule=rule, budget=BUDGET, seed=1)
            for source, options in ((smoother, {}), (bundle, {"threads": 1})):
                found = ds.certified_radius(source, CLEAR, sigma, label=1, budget=BUDGET, seed=1, **options)
                assert found == expected.radius > 0
        assert smoother.certify(CLEAR, budget=BUDGET).label == 1  # it stays open


def test_none_where_nothing_is_certified(bundle: Path) -> None:
    assert ds.certified_radius(bundle, BESIDE, 0.25, budget=BUDGET, seed=1) is None
    assert ds.certified_radius(bundle, CLEAR, 0.25, label=0, budget=BUDGET, seed=1) is None


def test_what_cannot_be_meant_is_refused(bundle: Path) -> None:
    with pytest.raises(ds.InputError, match=r"names a sigma that the bundle lacks; expected one of 0\.25, 0\.5"):
        ds.certified_radius(bundle, CLEAR, 0.3)
    with pytest.raises(ds.InputError, match="label is 2; expected a class from 0 to 1"):
        ds.certified_radius(bundle, CLEAR, label=2)
    with ds.load(bundle, threads=1) as smoother, pytest.raises(ds.InputError, match="threads with an open smoother"):
        ds.certified_radius(smoother, CLEAR, threads=1)
