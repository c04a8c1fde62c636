"""Groups and sets by a bundle whose smoothed answers are known: class 0 left of t = 0, 1 up to 1, and 2 beyond."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.service import Service
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.prediction import Prediction

SIGMA = 0.25
TORN, PLAIN = toys.image(1.0, 0.5), toys.image(0.5, 0.5)
"""As near to class 1 as to class 2, at 1 from class 0; and in the middle of class 1, at 0.5 from both others."""
ASK: dict[str, Any] = {"budget": ds.Fixed(4_000), "seed": 1, "noise": ds.Noise("float")}
GROUPS = {"right": ["class 1", "class 2"]}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    toys.write_bundle(
        path, sigmas=(SIGMA, 0.26), sigma_e=0.25, estimator_cuts=[2.0], classifier_cuts=[[0.0, 1.0], [0.0, 1.0]]
    )
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"groups": {"right": [1, 2]}}))
    return path


@pytest.fixture
def smoother(bundle: Path) -> ds.Smoother:
    return ds.load(bundle, threads=1)


@pytest.mark.parametrize("groups", [True, GROUPS, {"right": [2, 1]}])
def test_a_group_answers_where_the_class_is_in_doubt(smoother: ds.Smoother, groups: Any) -> None:
    assert smoother.certify(TORN, **ASK).abstained
    made = smoother.certify(TORN, **ASK, groups=groups)
    assert (made.label, made.group, made.answer, made.abstained) == (None, "right", (1, 2), False)
    assert 0.7 < made.radius < 1.0
    assert "counted by groups" in made.subject
    assert (made.correct_radius(1), made.covered_radius(1), made.covered_radius(0)) == (-1, made.radius, -1)


def test_a_class_that_is_not_in_doubt_is_asked_for(smoother: ds.Smoother) -> None:
    made = smoother.certify(PLAIN, **ASK, groups=True)
    assert (made.label, made.group, made.answer) == (1, None, (1,))
    assert 0.3 < made.radius < 0.5
    assert made.subject == smoother.certify(PLAIN, **ASK).subject


def test_the_radius_that_is_asked_for_decides_too(smoother: ds.Smoother) -> None:
    """At 0.45 the class is hardly certified; at 0.45 from class 0 the group is not better, at t = 0.9 it is."""
    asked = ASK | {"budget": ds.AtRadius(0.35, 4_000)}
    assert smoother.certify(toys.image(0.75, 0.5), **asked, groups=True).group == "right"
    assert smoother.certify(toys.image(0.75, 0.5), **ASK, groups=True).label == 1


def test_a_set_holds_the_label(smoother: ds.Smoother) -> None:
    made = smoother.certify(TORN, **ASK, at_most=2)
    assert (made.label, made.group, made.answer) == (None, None, (1, 2))
    assert 0.3 < made.radius < 0.5  # sigma/2 (Phi^-1(1/2) - Phi^-1(P_0)), half of the distance to class 0
    assert "groups" not in made.subject
    assert smoother.certify(PLAIN, **ASK, at_most=2).label == 1


@pytest.mark.parametrize("asked", [{"groups": GROUPS}, {"at_most": 2}])
def test_it_reads_back_and_replays(smoother: ds.Smoother, asked: dict[str, Any]) -> None:
    made = smoother.certify(TORN, **ASK, **asked)
    again = Certificate.from_json(made.to_json())
    assert again == made
    smoother.replay(again, TORN)
    assert made.recompute(alpha=0.01).answer == (1, 2)
    assert made.recompute(groups=False).abstained
    assert "groups" in " ".join(made.recompute(groups=False).caveats()) or "at_most" in asked


@pytest.mark.parametrize(
    "change",
    [
        {"group": "left"},
        {"group": None},
        {"label": 1},
        {"answer": [1]},
        {"terms": {"groups": {"right": [0, 1]}}},
        {"terms": {"groups": None}},
        {"terms": {"at_most": 2}},
        {"radius": 0.9},
    ],
)
def test_a_file_that_says_something_else_is_refused(smoother: ds.Smoother, change: dict[str, Any]) -> None:
    stated = json.loads(smoother.certify(TORN, **ASK, groups=True).to_json())
    terms = {**stated["terms"], **change.get("terms", {})}
    with pytest.raises(ds.CertificateError):
        Certificate.from_dict({**stated, **change, "terms": terms})
    del stated["terms"]["groups"]
    with pytest.raises(ds.CertificateError):
        Certificate.from_dict(stated)


def test_without_groups_certificates_are_as_before(smoother: ds.Smoother) -> None:
    """No word of groups, so that the noise is keyed as before, and older readers read on."""
    stated = json.loads(smoother.certify(PLAIN, **ASK).to_json())
    assert {"group", "answer"}.isdisjoint(stated)
    assert {"groups", "at_most"}.isdisjoint(stated["terms"])
    assert json.loads(smoother.certify(PLAIN, **ASK).terms.words()).keys() == {
        "alpha", "budget", "edition", "route", "rule",
    }  # fmt: skip


def test_noise_is_bound_to_the_groups(smoother: ds.Smoother) -> None:
    votes = {
        str(smoother.certify(TORN, **ASK, **more).tally.to_dict()) for more in ({}, {"groups": True}, {"at_most": 2})
    }
    assert len(votes) == 3


def test_predictions(smoother: ds.Smoother) -> None:
    asked = {"n": 2_000, "seed": 1, "noise": ds.Noise("float")}
    assert smoother.predict(TORN, **asked).abstained
    found = smoother.predict(TORN, **asked, groups=True)
    assert (found.label, found.group, found.answer, found.abstained) == (None, "right", (1, 2), False)
    pair = smoother.predict(TORN, **(asked | {"seed": 2}), at_most=2)  # a torn class looks certain once in five
    assert (pair.label, pair.group, pair.answer) == (None, None, (1, 2))
    plain = smoother.predict(PLAIN, **asked, groups=True)
    assert (plain.label, plain.group, plain.answer) == (1, None, (1,))
    for made in (found, pair, plain):
        assert Prediction.from_json(made.to_json()) == made
    assert "group" not in json.loads(plain.to_json())


def test_a_bundle_without_groups_says_so(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "b", sigmas=(SIGMA,), sigma_e=0.25, estimator_cuts=[], classifier_cuts=[[0.0, 1.0]])
    with pytest.raises(ds.InputError, match="has none; pass groups of your own"):
        ds.load(tmp_path / "b", threads=1).certify(TORN, **ASK, groups=True)


@pytest.mark.parametrize("groups", [{"right": [1]}, {"right": [1, 2], "left": [0, 1]}, {"right": [1, 3]}, [1], None])
def test_a_manifest_with_bad_groups_is_refused(bundle: Path, groups: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"groups": groups}))
    with pytest.raises(ds.BundleError, match=r"group.*export the bundle again"):
        ds.read_bundle(bundle)


def test_a_server_takes_them(smoother: ds.Smoother, request: pytest.FixtureRequest) -> None:
    service = Service(smoother, Limits(allow_seed=True))
    request.addfinalizer(service.close)
    expected = smoother.certify(TORN, **ASK, groups=True)
    for value in (True, "true", json.dumps(GROUPS)):
        reply = Collected()
        service.submit(TORN, {"budget": "fixed:4000", "seed": "1", "noise": "float", "groups": value}, reply)
        assert reply.done.wait(60)
        assert reply.answer == expected
    reply = Collected()
    service.submit(TORN, {"mode": "predict", "n": "2000", "at_most": "2", "seed": "2", "noise": "float"}, reply)
    assert reply.done.wait(60)
    assert isinstance(reply.answer, Prediction)
    assert reply.answer.answer == (1, 2)
    for bad in ("maybe", 3, '{"right": [1]}', "[1]"):
        with pytest.raises(ds.InputError, match="group"):
            service.submit(TORN, {"groups": bad}, Collected())


def test_radii_in_other_norms(smoother: ds.Smoother) -> None:
    made = smoother.certify(PLAIN, **ASK)
    assert made.radius_in("l1") == made.radius_in("l2") == made.radius
    assert made.radius / np.sqrt(2) - 2e-6 < made.radius_in("linf") <= made.radius / np.sqrt(2)
    read = Certificate.from_json(made.to_json())
    assert read.radius_in("linf", smoother.bundle.input_shape) == made.radius_in("linf")
    with pytest.raises(ds.InputError, match="needs the shape"):
        read.radius_in("linf")
