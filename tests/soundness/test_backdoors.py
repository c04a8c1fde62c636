"""Known wrong practice: trusting whatever generator is installed. A tampered one must not issue a certificate."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import backdoors
import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.noise import measures, selftest
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.streams import Noise

IMAGE = toys.image(178 / 255, 77 / 255)


@pytest.fixture
def smoother(tmp_path: Path) -> ds.Smoother:
    path = toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.2]
    )
    return ds.load(path, threads=1)


@pytest.mark.parametrize("mode", ["float", "lattice", "table"])
@pytest.mark.parametrize("backdoor", backdoors.ALL)
def test_no_certificate_from_a_backdoored_generator(
    smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch, backdoor: str, mode: str
) -> None:
    """Neither a certificate nor a prediction, though the known answers be forged as well."""
    monkeypatch.setitem(GENERATORS, "SFC64", replace(backdoors.ALL[backdoor], known={}))
    made: list[object] = []
    with pytest.raises(ds.EngineError, match="noise generator"):
        made.extend(smoother.certify_many([IMAGE, IMAGE], budget=ds.Fixed(200), seed=1, noise=Noise(mode)))
    with pytest.raises(ds.EngineError, match="noise generator"):
        made.append(smoother.predict(IMAGE, n=50, noise=Noise(mode)))
    assert made == []


def test_no_certificate_where_the_system_has_no_entropy(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first certificate by the self-test; later by comparison with the draw before."""
    monkeypatch.setattr(selftest, "_passed", set())
    monkeypatch.setattr(secrets, "randbits", lambda bits: 12345)
    with pytest.raises(ds.EngineError, match="entropy"):
        smoother.certify(IMAGE, budget=ds.Fixed(200))


def test_entropy_that_fails_later_is_noticed(smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
    smoother.certify(IMAGE, budget=ds.Fixed(200))
    monkeypatch.setattr(secrets, "randbits", lambda bits: 12345)
    smoother.certify(IMAGE, budget=ds.Fixed(200))
    with pytest.raises(ds.EngineError, match="entropy"):
        smoother.certify(IMAGE, budget=ds.Fixed(200))


@pytest.mark.parametrize("noise", [ds.Noise("float"), ds.Noise("table")], ids=str)
def test_a_generator_that_fails_late_loses_its_certificate(
    smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch, noise: ds.Noise
) -> None:
    """A stream that starts over after a million normals looks sound to any start-up test."""
    late = replace(GENERATORS["SFC64"], normals=lambda seed: backdoors.Late(seed, 1 << 20))
    monkeypatch.setitem(GENERATORS, "SFC64", replace(late, words=late.normals))
    smoother.certify(IMAGE, budget=ds.Fixed(10_000), noise=noise)
    with pytest.raises(ds.EngineError, match="starts over"):
        smoother.certify(IMAGE, budget=ds.Fixed(1_100_000), rule="single:0.25", noise=noise)


def test_what_a_generator_of_few_tails_would_have_claimed() -> None:
    """Noise of 0.8 sigma under votes counted as sigma's: the true radius is 20 % smaller than what is claimed."""
    z = np.random.Generator(np.random.SFC64(1)).standard_normal(100_000)
    claimed = 0.5 * measures.special.ndtri((0.8 * 0.5 * z > -0.3).mean())
    assert claimed > 1.2 * 0.3
