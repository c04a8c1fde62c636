"""Certificates: whatever is accepted follows from its own counts, by a second implementation of the mathematics."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import GARBAGE, changed_text
from fuzz.oracle import proven
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.bundle.preprocessing import Preprocessing

SIGMAS = (0.25, 0.5, 1.0)
RULES: list[tuple[str, str | None]] = [
    ("interval", None),
    ("interval", "mode"),
    ("paper", None),
    ("paper", "median"),
    ("multiscale", None),
    ("single:0.5", None),
]
SIMPLE = ds.Fixed(300, n0=20)


def certificates(smoother: ds.Smoother) -> Iterator[dict[str, Any]]:
    """Real ones: of every rule and budget, certain, uncertain and abstaining, some with all levels sampled."""
    places = [toys.image(0.9, 0.1), toys.image(0.32, 0.45), toys.image(0.05, 0.9)]
    for number, (rule, route) in enumerate(RULES):
        budgets = [SIMPLE] if rule == "multiscale" else [SIMPLE, ds.Adaptive(900, 0.02), ds.AtRadius(0.1, 300)]
        for budget in budgets:
            for image in places:
                options: dict[str, Any] = {"rule": rule, "route": route, "seed": number, "alpha": 0.001 * (1 + number)}
                yield smoother.certify(image, budget=budget, **options).to_dict()
    full = next(smoother.certify_many(places[1:2], budget=ds.AtRadii((0.0, 0.2), 200), all_levels=True, seed=1))
    yield full.to_dict()


def make_smoother(folder: Path) -> ds.Smoother:
    path = toys.write_bundle(
        folder / "bundle",
        sigmas=SIGMAS,
        sigma_e=0.8,
        estimator_cuts=[0.3, 0.6],
        classifier_cuts=[0.3, 0.35, 0.2],
        sure=(0.6, 0.55),
    )
    return ds.load(path, threads=1)


def lone_certificates(folder: Path) -> Iterator[dict[str, Any]]:
    """Of one level without a router, for pictures of any size."""
    how = Preprocessing(toys.SHAPE, 8)
    path = toys.write_bundle(folder / "lone", sigmas=(0.5,), classifier_cuts=[0.3], preprocessing=how)
    smoother = ds.load(path, threads=1)
    for budget in (SIMPLE, ds.Adaptive(900, 0.02)):
        yield smoother.certify(toys.image(0.9, 0.1), budget=budget, seed=1).to_dict()


class Samples:
    """Filled when the first target runs; strategies are made before."""

    smoother: ds.Smoother
    certificates: list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def samples(folder: Path) -> None:
    Samples.smoother = make_smoother(folder)
    Samples.certificates = [*certificates(Samples.smoother), *lone_certificates(folder)]


mutated = st.one_of(*[changed_text(lambda: Samples.certificates)] * 9, GARBAGE)


def check(stated: dict[str, Any], made: ds.Certificate) -> None:
    """`made` says what the text states, and both follow from its votes."""
    fresh = made.to_dict()
    for name in ("votes", "terms", "artefact", "alpha", "label", "abstained", "sigma", "route", "passes"):
        assert fresh[name] == stated[name], name
    assert fresh["seed"] == {**fresh["seed"], **stated["seed"]}  # older ones state less
    label, radius = proven(stated)
    if label != made.label:  # a radius of about one step may go either way
        assert abs(radius - 1e-6) < 1e-8
    assert made.radius <= radius
    assert stated["radius"] <= radius + 2.6e-6
    assert made.abstained == (made.radius == 0)
    assert ds.Certificate.from_json(made.to_json()) == made


@fuzz("certificates", text=mutated, share=0.5)
def test_accepted_certificates_follow_from_their_counts(text: str) -> None:
    made = attempt(ds.Certificate.from_json, text)
    check(json.loads(text), made)
    attempt(Samples.smoother.verify, made)
    bundle = Samples.smoother.bundle
    assert (made.terms.sigmas, made.terms.sigma_e, made.terms.classes) == (bundle.sigmas, bundle.sigma_e, 2)
    assert made.artefact.manifest_sha256 == bundle.manifest_sha256
    assert made.artefact.files == bundle.files


CLAIMS = ("radius", "alpha", "label", "class_radius", "route_radius", "sigma", "passes", "route", "guess")


@fuzz(
    "certificates",
    share=0.25,
    number=st.integers(0, 10**6),
    field=st.sampled_from(CLAIMS),
    by=st.one_of(st.floats(3e-6, 10), st.floats(3e-6, 1e-3)),
)
def test_no_figure_can_be_improved(number: int, field: str, by: float) -> None:
    """One figure of a valid certificate is made better, and nothing else changes."""
    stated = copy.deepcopy(Samples.certificates[number % len(Samples.certificates)])
    old = stated[field]
    if field == "alpha":
        stated[field] = old / (1 + 1e3 * by)
        if abs(proven(stated)[1] - stated["radius"]) < 1e-5:
            return  # it follows from a smaller alpha as well, e.g. 0
    elif field in ("label", "guess", "route"):
        stated[field] = (old or 0) + 1
    elif field == "passes":
        stated[field] = old + 1 + int(by)
    else:
        stated[field] = (old or 0.0) + by
    attempt(ds.Certificate.from_dict, stated)
    raise AssertionError(f"{field} {old} was accepted as {stated[field]}")


@fuzz(
    "certificates",
    share=0.25,
    number=st.integers(0, 10**6),
    pick=st.integers(0, 10**6),
    moved=st.integers(1, 40),
)
def test_votes_cannot_be_moved(number: int, pick: int, moved: int) -> None:
    """Votes go from one class to another, and the figures stay: accepted only where they still follow."""
    stated = copy.deepcopy(Samples.certificates[number % len(Samples.certificates)])
    streams = sorted(stated["votes"])
    look = stated["votes"][streams[pick % len(streams)]][-1]
    giver = max(look, key=look.get)  # type: ignore[arg-type]
    taker = "1" if giver == "0" else "0"
    moved = min(moved, look[giver])
    look[giver] -= moved
    look[taker] = look.get(taker, 0) + moved
    if look[giver] == 0:
        del look[giver]
    check(stated, attempt(ds.Certificate.from_dict, stated))
