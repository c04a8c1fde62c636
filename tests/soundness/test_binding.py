"""Noise is bound to what it certifies: nobody can see noise first and choose an image, a budget or a run afterwards.

Each of these worked on certificates of version 1.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.service import Service
from dualsmooth.runtime.statistics.certification import checked_terms, settle
from dualsmooth.runtime.statistics.votes import Stream

IMAGE = toys.image(0.6, 0.1)
BUDGET = ds.Fixed(200, n0=20)


@pytest.fixture
def smoother(tmp_path: Path) -> ds.Smoother:
    toys.write_bundle(tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.4, 0.3])
    return ds.load(tmp_path / "b", threads=1)


def noise_of(certificate: ds.Certificate) -> list[float]:
    out = np.empty(8, np.float32)
    certificate.drawn_seed.generator(Stream("classifier", 0, "estimation")).standard_normal(dtype=np.float32, out=out)
    return out.tolist()


def test_a_published_certificate_tells_nothing_of_the_next_image(smoother: ds.Smoother) -> None:
    """Of a stream, one entropy was drawn for all: the first certificate gave away the noise of images still to come."""
    made = list(smoother.certify_many([IMAGE] * 4, budget=BUDGET))
    assert len({c.seed.entropy for c in made}) == 4
    assert len({tuple(noise_of(c)) for c in made}) == 4


def test_another_image_bundle_or_word_of_the_terms_gets_other_noise(smoother: ds.Smoother) -> None:
    made = smoother.certify(IMAGE, budget=BUDGET, seed=5)
    same = smoother.certify(IMAGE, budget=BUDGET, seed=5)
    assert same == made
    drawn = {tuple(noise_of(made))}
    for change in ({"image_sha256": "0" * 64}, {"manifest_sha256": "0" * 64}):
        drawn.add(tuple(noise_of(replace(made, artefact=replace(made.artefact, **change)))))
    for options in ({"alpha": 0.01}, {"rule": "paper"}, {"route": "mode"}, {"budget": ds.Fixed(201, n0=20)}):
        drawn.add(tuple(noise_of(smoother.certify(IMAGE, **{"budget": BUDGET, "seed": 5} | options))))
    assert len(drawn) == 7


def test_votes_cannot_be_certified_under_a_budget_that_was_chosen_afterwards(smoother: ds.Smoother) -> None:
    """The first look of an adaptive budget, stated as a fixed one: all of alpha for it, where it had a share."""
    made = smoother.certify(IMAGE, budget=ds.Adaptive(6400, n0=20))
    tally = made.terms.tally()
    for stream, looks in made.tally.looks.items():
        tally.record(stream, looks[0])
    terms = replace(made.terms, budget=ds.Fixed(made.terms.budget.looks[0], n0=20))
    forged = replace(made, terms=terms, tally=tally, outcome=settle(terms, tally))
    assert forged.radius > replace(made, tally=tally, outcome=settle(made.terms, tally)).radius
    forged = ds.Certificate.from_json(forged.to_json())  # it follows from its own counts
    smoother.replay(made, IMAGE)
    with pytest.raises(ds.CertificateError, match="drew other votes"):
        smoother.replay(forged, IMAGE)


def test_recomputed_certificates_say_so_and_replay_as_they_were_drawn(smoother: ds.Smoother) -> None:
    (made,) = smoother.certify_many([IMAGE], budget=BUDGET, all_levels=True)
    other = ds.Certificate.from_json(made.recompute(rule="paper", alpha=0.05).to_json())
    assert "recomputed" in other.caveats()[0]
    smoother.replay(other, IMAGE)
    hidden = json.loads(other.to_json()) | {"recomputed_from": None}
    with pytest.raises(ds.CertificateError, match="drew other votes"):
        smoother.replay(ds.Certificate.from_dict(hidden), IMAGE)


def test_different_classifiers_are_named(smoother: ds.Smoother) -> None:
    ways = [("interval", None), ("interval", "mode"), ("interval", "quantile:0.3"), ("multiscale", None)]
    ways += [("single:0.25", None), ("single:0.5", None)]
    subjects = [smoother.certify(IMAGE, budget=BUDGET, rule=rule, route=route).subject for rule, route in ways]
    assert len(set(subjects)) == len(ways)
    assert smoother.certify(IMAGE, budget=BUDGET, rule="paper").subject == subjects[1]


def test_one_index_for_two_images_is_refused(smoother: ds.Smoother) -> None:
    made = smoother.certify_many([IMAGE, IMAGE], budget=BUDGET, indices=[3, 3])
    with pytest.raises(ds.InputError, match="index 3 is given twice"):
        list(made)


def test_the_seed_of_a_run_gives_each_image_its_own(smoother: ds.Smoother) -> None:
    """What a dead worker's block, or a killed evaluation, draws again is what it drew."""
    run = Seed.make(None)
    first, again = (list(smoother.certify_many([IMAGE] * 3, budget=BUDGET, seed=run)) for _ in range(2))
    assert first == again
    assert len({run.entropy, *(c.seed.entropy for c in first)}) == 4
    assert not any(c.seed.fixed or c.caveats() for c in first)


def answers(service: Service, *requests: dict[str, str]) -> list[ds.Certificate]:
    replies = [Collected() for _ in requests]
    for request, reply in zip(requests, replies, strict=True):
        service.submit(IMAGE, {"budget": "fixed:200:20", **request}, reply)
    assert all(reply.done.wait(60) for reply in replies)
    return [reply.answer for reply in replies]  # type: ignore[misc]


def test_a_request_that_is_sent_again_draws_the_same_votes(smoother: ds.Smoother) -> None:
    """Some HTTP clients send a request again when the connection closes; that must not roll the dice again."""
    services = [Service(smoother), Service(smoother)]
    nonce = {"nonce": "0123456789abcdef0123"}
    one, two, other, plain = answers(services[0], nonce, nonce, {"nonce": "f" * 32}, {})
    assert one == two
    (elsewhere,) = answers(services[1], nonce)  # the server has its part in it
    assert len({c.seed.entropy for c in (one, other, plain, elsewhere)}) == 4
    for service in services:
        service.close()


def test_a_server_chooses_its_own_seeds(smoother: ds.Smoother) -> None:
    service = Service(smoother)
    with pytest.raises(ds.InputError, match="chooses its own seeds"):
        answers(service, {"seed": "3"})
    with pytest.raises(ds.InputError, match="nonce is"):
        answers(service, {"nonce": "1"})
    service.close()
    open_to_all = Service(smoother, Limits(allow_seed=True))
    (made,) = answers(open_to_all, {"seed": "3"})
    assert made.caveats()
    open_to_all.close()


def test_a_prediction_says_what_was_sampled(smoother: ds.Smoother) -> None:
    made = smoother.predict(IMAGE, n=100, seed=4, route="quantile:0.3")
    assert made.image_sha256 == smoother.certify(IMAGE, budget=BUDGET).artefact.image_sha256
    assert (made.manifest_sha256, made.route) == (smoother.bundle.manifest_sha256, "quantile:0.3")
    assert type(made).from_json(made.to_json()) == made


def test_terms_are_words_that_differ() -> None:
    """The text in the key tells apart all that a person can choose."""
    fixed = {"sigmas": (0.25, 0.5), "sigma_e": 0.5, "classes": 3}
    texts = {
        checked_terms(**fixed, alpha=alpha, rule=rule, route=route, budget=budget).words()  # type: ignore[arg-type]
        for alpha in (0.001, 0.0010000001)
        for rule, route in (("interval", None), ("interval", "mode"), ("paper", "mode"), ("single:0.5", None))
        for budget in (ds.Fixed(100), ds.Fixed(100, n0=50), ds.Adaptive(100), ds.AtRadius(0.5, 100))
    }
    assert len(texts) == 2 * 4 * 4
