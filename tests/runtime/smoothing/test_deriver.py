"""Derived certificates on networks whose true radius is known: sound, replayable, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.smoothing.deriver import Deriver

OLD = {"estimator_cut": 0.5, "classifier_cuts": (0.3, 0.4)}
NEW = {"estimator_cut": 0.502, "classifier_cuts": (0.302, 0.402)}
IMAGE = toys.image(0.75, 0.3)


@pytest.fixture(scope="module")
def deriver(tmp_path_factory: pytest.TempPathFactory) -> Deriver:
    folder = tmp_path_factory.mktemp("derive")
    old, new = toys.two_levels(folder / "old", **OLD), toys.two_levels(folder / "new", **NEW)
    return Deriver(ds.load(old, threads=1), ds.load(new, threads=1))


@pytest.fixture(scope="module")
def old(deriver: Deriver) -> ds.Certificate:
    return deriver.old.certify(IMAGE, seed=3)


def test_it_is_about_the_new_network_and_no_farther_than_its_truth(deriver: Deriver, old: ds.Certificate) -> None:
    made = deriver.derive(old, IMAGE, passes=2_000, seed=4)
    truth = toys.true_radius(
        0.75, 0.3, 1, estimator_cuts=[0.502], classifier_cuts=NEW["classifier_cuts"], sigma_e=0.5, kind="median"
    )
    assert made.label == 1
    assert 0.5 * old.radius < made.radius < old.radius
    assert made.radius <= truth
    deriver.new.verify(made)
    assert made.passes == old.passes + made.derived.cost
    assert made.derived.cost == 2 * 2_000 * len(made.derived.pairs.looks)
    with pytest.raises(ds.CertificateError, match="other files"):
        deriver.old.verify(made)


def test_disagreement_costs_radius(deriver: Deriver, old: ds.Certificate, tmp_path: Path) -> None:
    far = toys.two_levels(tmp_path / "far", estimator_cut=0.5, classifier_cuts=(0.5, 0.6))
    other = Deriver(deriver.old, ds.load(far, threads=1)).derive(old, IMAGE, seed=4)
    assert other.radius < deriver.derive(old, IMAGE, seed=4).radius
    assert other.radius <= 0.15  # (0.75, 0.3) is 0.15 from where level 1 changes its label, 0.25 from level 0's


def test_it_is_read_back_recomputed_and_refused_where_altered(deriver: Deriver, old: ds.Certificate) -> None:
    made = deriver.derive(old, IMAGE, seed=4)
    text = made.to_json()
    assert ds.Certificate.from_json(text).to_json() == text
    data = json.loads(text)
    data["derived"]["pairs"]["classifier/0"] = {"1>1": 1_000}
    with pytest.raises(ds.CertificateError, match="but the votes give"):
        ds.Certificate.from_dict(data)
    data["derived"]["pairs"]["classifier/0"] = {"1>1": 10**6}
    with pytest.raises(ds.CertificateError, match="as many pairs"):
        ds.Certificate.from_dict(data)
    del (bare := json.loads(text))["derived"]
    with pytest.raises(ds.CertificateError, match="but the votes give"):
        ds.Certificate.from_dict(bare)
    smaller = made.recompute(alpha=1e-4)
    assert smaller.radius < made.radius
    assert ds.Certificate.from_json(smaller.to_json()).derived == smaller.derived


def test_it_says_what_is_taken_on_trust(deriver: Deriver, old: ds.Certificate) -> None:
    made = deriver.derive(old, IMAGE)
    assert any("without a look at them" in caveat for caveat in made.caveats())
    assert not made.derived.seed.fixed


def test_both_votes_are_replayed(deriver: Deriver, old: ds.Certificate) -> None:
    made = deriver.derive(old, IMAGE, seed=4)
    deriver.replay(made, IMAGE)
    with pytest.raises(ds.CertificateError, match="--old OLD"):
        deriver.new.replay(made, IMAGE)
    with pytest.raises(ds.CertificateError, match="it is not derived"):
        deriver.replay(old, IMAGE)
    data = json.loads(made.to_json())
    data["derived"]["seed"]["entropy"] = f"{5:032x}"
    with pytest.raises(ds.CertificateError, match="drew other pairs"):
        deriver.replay(ds.Certificate.from_dict(data), IMAGE)


def test_pairs_are_bound_to_both_bundles_and_their_number(deriver: Deriver, old: ds.Certificate) -> None:
    made = deriver.derive(old, IMAGE, seed=4)
    key = made.derived.drawn_seed(made.artefact, made.terms).key()
    assert key != made.derived.drawn_seed(deriver.old.artefact(IMAGE), made.terms).key()
    assert key != deriver.derive(old, IMAGE, passes=999, seed=4).derived.drawn_seed(made.artefact, made.terms).key()
    assert key != old.drawn_seed.key()


def test_what_does_not_fit_is_refused(deriver: Deriver, old: ds.Certificate, tmp_path: Path) -> None:
    with pytest.raises(ds.InputError, match="derived already"):
        deriver.derive(deriver.derive(old, IMAGE, passes=10), IMAGE)
    with pytest.raises(ds.InputError, match="the image is not the one"):
        deriver.derive(old, toys.image(0.6, 0.3))
    with pytest.raises(ds.CertificateError, match="other files"):
        deriver.derive(deriver.new.certify(IMAGE, budget=ds.Fixed(100)), IMAGE)
    with pytest.raises(ds.InputError, match="rule multiscale"):
        deriver.derive(deriver.old.certify(IMAGE, rule="multiscale", budget=ds.Fixed(100)), IMAGE)
    with pytest.raises(ds.InputError, match="passes is 0"):
        deriver.derive(old, IMAGE, passes=0)
    other = toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.75), sigma_e=0.75, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    with pytest.raises(ds.InputError, match="has sigmas"):
        Deriver(deriver.old, ds.load(other, threads=1))


def test_the_noise_is_that_of_the_votes(deriver: Deriver) -> None:
    """Rounding to the lattice is part of the base model."""
    pixels = np.array([[[190, 77]]], np.uint8)
    old = deriver.old.certify(pixels, budget=ds.Fixed(1_000))
    made = deriver.derive(old, pixels, passes=500)
    assert made.derived.seed.noise == old.seed.noise == ds.Noise("table")
    data = json.loads(made.to_json())
    data["derived"]["seed"]["noise"] = "float"
    with pytest.raises(ds.CertificateError, match=r"derived\.seed has noise float"):
        ds.Certificate.from_dict(data)


def test_one_level_without_a_router_is_derived_too(tmp_path: Path) -> None:
    folders = [
        toys.write_bundle(tmp_path / name, sigmas=(0.25,), classifier_cuts=[cut])
        for name, cut in (("a", 0.3), ("b", 0.302))
    ]
    pair = Deriver(*(ds.load(folder, threads=1) for folder in folders))
    old = pair.old.certify(IMAGE, seed=3)
    made = pair.derive(old, IMAGE, seed=4)
    assert 0.5 * old.radius < made.radius < old.radius
    assert made.radius <= 0.75 - 0.302
    pair.replay(ds.Certificate.from_json(made.to_json()), IMAGE)
