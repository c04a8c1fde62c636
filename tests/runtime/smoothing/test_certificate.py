"""Certificates: text form, recomputation, and refusal of everything that does not follow from the votes."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.statistics.certification import settle

SIGMAS = (0.25, 0.5, 1.0)
BUDGETS = (ds.Fixed(300, n0=20), ds.Adaptive(1000, 0.05, n0=20), ds.AtRadius(0.2, 1000, n0=20))


@cache
def made(budget: ds.Budget = BUDGETS[0], rule: str = "interval", all_levels: bool = False) -> ds.Certificate:
    with tempfile.TemporaryDirectory() as folder:
        path = toys.write_bundle(
            Path(folder) / "b",
            sigmas=SIGMAS,
            sigma_e=0.5,
            estimator_cuts=[0.5, 0.8],
            classifier_cuts=[[0.1, 0.4], [0.1, 0.35], [0.0, 0.3]],
        )
        smoother = ds.load(path, threads=1)
        image = toys.image(0.8, 0.1)
        return next(smoother.certify_many([image], budget=budget, rule=rule, alpha=0.01, seed=5, all_levels=all_levels))


@pytest.mark.parametrize("rule", ["interval", "paper", "multiscale", "single:0.5"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_text_round_trip(budget: ds.Budget, rule: str) -> None:
    if rule == "multiscale" and budget != BUDGETS[0]:
        return
    certificate = made(budget, rule)
    text = certificate.to_json()
    assert "\n" not in text
    again = ds.Certificate.from_json(text)
    assert again.to_json() == text
    assert again.outcome == certificate.outcome
    assert again.terms == certificate.terms
    assert certificate.radius > 0


def test_certificates_compare() -> None:
    assert ds.Certificate.from_json(made().to_json()) == made()
    assert made(all_levels=True) != made()


def test_a_key_that_occurs_twice_is_refused() -> None:
    text = '{"radius": 9.0, ' + made().to_json()[1:]
    with pytest.raises(ds.CertificateError, match="a key occurs twice"):
        ds.Certificate.from_json(text)


def test_what_a_certificate_tells() -> None:
    certificate = made()
    data = json.loads(certificate.to_json())
    for name in ("label", "radius", "sigma", "abstained", "alpha", "route_radius", "class_radius", "passes"):
        assert data[name] == getattr(certificate, name)
    assert data["seed"]["fixed"] is True
    assert set(data["artefact"]["files"]) == {"estimator.onnx", *(f"classifier_{s}.onnx" for s in range(3))}
    assert (certificate.radius * 1e6) == pytest.approx(round(certificate.radius * 1e6), abs=1e-6)


Change = Callable[[dict[str, Any]], Any]
TAMPERED: dict[str, Change] = {
    "radius up": lambda d: d.update(radius=d["radius"] + 1e-4),
    "radius up by less than a digit": lambda d: d.update(radius=d["radius"] + 1.4e-6),
    "sigma text": lambda d: d.update(sigma="0.25"),
    "radius down": lambda d: d.update(radius=d["radius"] - 1e-4),
    "radius NaN": lambda d: d.update(radius=float("nan")),
    "radius text": lambda d: d.update(radius=str(d["radius"])),
    "radius huge": lambda d: d.update(radius=10**400),
    "sigma by a little": lambda d: d.update(sigma=d["sigma"] + 1e-6),
    "no label": lambda d: d.pop("label"),
    "no route radius": lambda d: d.pop("route_radius"),
    "a field of its own": lambda d: d.update(linf_radius=9.0),
    "a field of its own in the seed": lambda d: d["seed"].update(trusted=True),
    "a field of its own in the terms": lambda d: d["terms"].update(norm="linf"),
    "a field of its own in the artefact": lambda d: d["artefact"].update(accuracy=1.0),
    "artefact of numbers": lambda d: d["artefact"].update(precision=float("nan")),
    "artefact files as pairs": lambda d: d["artefact"].update(files=[["a", "b"]]),
    "version a number": lambda d: d.update(dualsmooth=1),
    "label": lambda d: d.update(label=0),
    "label none": lambda d: d.update(label=None),
    "label true": lambda d: d.update(label=True, guess=True),
    "abstained": lambda d: d.update(abstained=True),
    "sigma": lambda d: d.update(sigma=0.5),
    "alpha": lambda d: d.update(alpha=0.001),
    "alpha zero": lambda d: d.update(alpha=0),
    "alpha text": lambda d: d.update(alpha="0.01"),
    "route_radius": lambda d: d.update(route_radius=9.0),
    "route_radius none": lambda d: d.update(route_radius=None),
    "class_radius": lambda d: d.update(class_radius=9.0),
    "passes": lambda d: d.update(passes=d["passes"] + 1),
    "route": lambda d: d.update(route=1),
    "guess": lambda d: d.update(guess=1),
    "exclusion": lambda d: d["exclusion"].__setitem__(1, 9.0),
    "exclusion short": lambda d: d["exclusion"].pop(),
    "class_radii": lambda d: d["class_radii"].__setitem__(0, 9.0),
    "version": lambda d: d.update(version=3),
    "version of the shares": lambda d: d.update(version=1),
    "subject": lambda d: d.update(subject="the classifier smoothed at sigma 0.25"),
    "recomputed": lambda d: d.update(recomputed_from={"version": 2, "alpha": 0.1, "rule": "paper"}),
    "format": lambda d: d.update(format="other"),
    "rule": lambda d: d["terms"].update(rule="paper"),
    "rule unknown": lambda d: d["terms"].update(rule="best"),
    "rule type": lambda d: d["terms"].update(rule=["interval"]),
    "route kind": lambda d: d["terms"].update(route="mode"),
    "budget n": lambda d: d["terms"].update(budget="fixed:301:20"),
    "budget kind": lambda d: d["terms"].update(budget="adaptive:600:0:20"),
    "budget text": lambda d: d["terms"].update(budget="plenty"),
    "sigmas": lambda d: d["terms"].update(sigmas=[0.3, 0.5, 1.0]),
    "sigmas order": lambda d: d["terms"].update(sigmas=[0.5, 0.25, 1.0]),
    "sigmas fewer": lambda d: d["terms"].update(sigmas=[0.25, 0.5]),
    "sigmas none": lambda d: d["terms"].update(sigmas=[]),
    "sigmas huge": lambda d: d["terms"].update(sigmas=[10**400]),
    "sigma_e": lambda d: d["terms"].update(sigma_e=0.6),
    "sigma_e NaN": lambda d: d["terms"].update(sigma_e=float("nan")),
    "classes": lambda d: d["terms"].update(classes=2),
    "classes huge": lambda d: d["terms"].update(classes=10**9),
    "terms gone": lambda d: d.pop("terms"),
    "votes gone": lambda d: d.pop("votes"),
    "seed gone": lambda d: d.pop("seed"),
    "artefact short": lambda d: d["artefact"].pop("files"),
    "artefact text": lambda d: d.update(artefact="files"),
    "fewer selection votes": lambda d: d["votes"].update({"classifier/0/selection": [{"2": 19}]}),
    "other selection votes": lambda d: d["votes"].update({"classifier/0/selection": [{"1": 20}]}),
    "no selection votes": lambda d: d["votes"].pop("classifier/0/selection"),
    "no router votes": lambda d: d["votes"].pop("estimator/0/estimation"),
    "no votes": lambda d: d["votes"].clear(),
    "fewer selection votes, counted": lambda d: d.update(
        votes=d["votes"] | {"classifier/0/selection": [{"2": 19}]}, passes=d["passes"] - 1
    ),
    "selection votes in two looks": lambda d: d["votes"].update({"classifier/0/selection": [{"2": 9}, {"2": 20}]}),
    "an idle stream of another size": lambda d: d.update(
        votes=d["votes"] | {"classifier/2/selection": [{"2": 7}]}, passes=d["passes"] + 7
    ),
    "another stream": lambda d: d["votes"].update({"classifier/9/estimation": [{"2": 300}]}),
    "too many classifier votes": lambda d: d["votes"]["classifier/0/estimation"].append({"2": 900}),
    "better classifier votes": lambda d: d["votes"].update({"classifier/0/estimation": [{"2": 300}]}),
    "better router votes": lambda d: d["votes"].update({"estimator/0/estimation": [{"0": 300}]}),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_tampered_certificates_are_refused(change: str) -> None:
    data = json.loads(made().to_json())
    TAMPERED[change](data)
    with pytest.raises(ds.CertificateError) as caught:
        ds.Certificate.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 1}', "[" * 100_000, '{"a":' * 5000])
def test_things_that_are_no_certificate_are_refused(text: str) -> None:
    with pytest.raises(ds.CertificateError):
        ds.Certificate.from_json(text)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON object."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4)
VALUES = SCALARS | st.just(10**400) | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_certificates_only_ever_raise_certificate_errors(data: st.DataObject) -> None:
    mutated = json.loads(made(BUDGETS[1]).to_json())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(mutated)[1:]))
        parent = mutated
        for key in path:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = data.draw(VALUES)
        else:
            del parent[last]
    with contextlib.suppress(ds.CertificateError):
        read = ds.Certificate.from_dict(copy.deepcopy(mutated))
        assert settle(read.terms, read.tally) == read.outcome
        assert mutated["radius"] <= read.radius + 2e-6


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize(
    ("rule", "route"), [("interval", None), ("interval", "mode"), ("paper", None), ("single:0.5", None)]
)
def test_recomputation_is_what_other_terms_would_have_settled(budget: ds.Budget, rule: str, route: str | None) -> None:
    """From a run that sampled every level; it says what its votes were drawn for."""
    full = made(budget, all_levels=True)
    other = full.recompute(rule=rule, route=route)
    assert str(other.terms.rule) == rule
    assert other.outcome == settle(other.terms, full.tally)
    assert other.drawn == (None if other.terms == full.terms else full.terms)
    assert ("recomputed" in " ".join(other.caveats())) == (other.terms != full.terms)
    assert other.drawn_seed == full.drawn_seed
    again = ds.Certificate.from_json(other.to_json())
    assert (again, again.to_json()) == (other, other.to_json())
    assert other.recompute(rule="interval") == full


def test_recomputation_under_another_alpha() -> None:
    radii = [made().recompute(alpha=alpha).radius for alpha in (1e-6, 1e-3, 0.01, 0.1)]
    assert radii == sorted(radii)
    assert made().recompute(alpha=0.01).outcome == made().outcome
    assert made().recompute(alpha=0.05).alpha == 0.05
    with pytest.raises(ds.InputError):
        made().recompute(alpha=0.5)


def test_recomputation_needs_the_votes() -> None:
    with pytest.raises(ds.CertificateError, match="all-levels"):
        made().recompute(rule="single:1")
    with pytest.raises(ds.CertificateError, match="all-levels"):
        made().recompute(rule="multiscale")


def test_true_is_no_noise_level() -> None:
    data = json.loads(made(rule="single:1").to_json())
    assert data["sigma"] == 1
    with pytest.raises(ds.CertificateError, match="sigma is stated as True"):
        ds.Certificate.from_dict(data | {"sigma": True})


def test_radii_may_differ_by_one_printed_digit() -> None:
    """Another SciPy may round a bound the other way; what is read is our own figure."""
    data = json.loads(made().to_json())
    for step in (-1, 1):
        data["radius"] = round(made().radius * 1e6 + step) / 1e6
        assert ds.Certificate.from_dict(data).radius == made().radius
    data["radius"] = round(made().radius * 1e6 + 2) / 1e6
    with pytest.raises(ds.CertificateError, match="radius is stated as"):
        ds.Certificate.from_dict(data)


def test_abstention() -> None:
    certificate = made(ds.AtRadius(2.4, 1000, n0=20), "single:1")
    certificate = ds.Certificate.from_json(certificate.to_json())
    assert certificate.abstained == (certificate.label is None) == (certificate.radius == 0)
    assert certificate.route_radius == float("inf")
