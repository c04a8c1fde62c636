"""The public entry: inputs are checked, results are reproducible, certificates can be replayed."""

from __future__ import annotations

import dataclasses
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import toys

import dualsmooth as ds

FIXED = ds.Fixed(200, n0=20)


@pytest.fixture
def smoother(tmp_path: Path) -> ds.Smoother:
    toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.25]
    )
    return ds.load(tmp_path / "b", threads=1)


IMAGE = toys.image(0.7, 0.3)


def test_bytes_and_floats_are_the_same_image(smoother: ds.Smoother) -> None:
    pixels = np.array([[[128, 51]]], np.uint8)
    as_bytes = smoother.certify(pixels, seed=1, budget=FIXED)
    as_floats = smoother.certify(pixels.astype(np.float32) / np.float32(255), seed=1, budget=FIXED)
    assert as_bytes.to_json() == as_floats.to_json()


def test_images_come_as_arrays_pictures_and_paths(smoother: ds.Smoother, tmp_path: Path) -> None:
    """Mixed, and each certified as the array that it is."""
    pixels = np.array([[[128, 51]]], np.uint8)
    PIL.Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    given = [pixels, pixels[0], tmp_path / "a.png", str(tmp_path / "a.png"), PIL.Image.fromarray(pixels[0])]
    plain = [c.to_json() for c in smoother.certify_many([pixels] * len(given), seed=1, budget=FIXED)]
    assert [c.to_json() for c in smoother.certify_many(given, seed=1, budget=FIXED)] == plain
    assert [smoother.certify(image, seed=1, budget=FIXED).to_json() for image in given] == plain[:1] * len(given)
    first = smoother.predict(pixels, n=100, seed=1)
    assert all(smoother.predict(image, n=100, seed=1) == first for image in given)
    smoother.replay(smoother.certify(pixels, seed=1, budget=FIXED), tmp_path / "a.png")
    with pytest.raises(ds.InputError, match="images is the path"):
        smoother.certify_many(str(tmp_path))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 1), np.float32),
        np.zeros((1, 1, 1, 2), np.float32),
        np.zeros((2, 1, 1), np.float32),
        np.zeros((0, 1, 2), np.float32),
        np.zeros((1, 1, 2), np.float64),
        np.zeros((1, 1, 2), np.float16),
        np.zeros((1, 1, 2), np.int64),
        np.zeros((1, 1, 2), bool),
        np.zeros((1, 1, 2), ">f4"),
        np.zeros((1, 1, 2), complex),
        np.full((1, 1, 2), "x"),
        np.full((1, 1, 2), None),
        np.array([[[np.nan, 0]]], np.float32),
        np.array([[[0, np.inf]]], np.float32),
        np.array([[[-0.01, 0]]], np.float32),
        np.array([[[0, 1.0001]]], np.float32),
        np.array([[[0, 128]]], np.float32),
        [[[0.1, 0.2]]],
        [[[0.1], [0.2, 0.3]]],
        "image.png",
        None,
        7,
    ],
)
def test_unusable_images_are_refused_in_one_line(smoother: ds.Smoother, image: Any) -> None:
    for call in (smoother.certify, smoother.predict):
        with pytest.raises(ds.InputError, match="expected") as caught:
            call(image)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"alpha": 0}, {"alpha": 0.5}, {"alpha": "x"}, {"budget": 1000}, {"rule": "best"}, {"rule": "single:9"}),
        *(
            {"route": "mean"},
            {"seed": -1},
            {"seed": 1.5},
            {"rule": None},
            {"rule": "multiscale", "budget": ds.Adaptive(999)},
        ),
    ],
)
def test_unusable_arguments_are_refused(smoother: ds.Smoother, options: dict[str, Any]) -> None:
    with pytest.raises(ds.InputError, match="expected"):
        smoother.certify(IMAGE, **options)


@pytest.mark.parametrize("indices", [[0, -1], [0, 1.5], [0], [0, "a"]])
def test_unusable_indices_are_refused(smoother: ds.Smoother, indices: list[Any]) -> None:
    """Too few as well: an image must never be left out silently."""
    with pytest.raises(ds.InputError, match="expected"):
        list(smoother.certify_many([IMAGE, IMAGE], indices=indices, budget=FIXED))


def test_unusable_batch_sizes_are_refused(tmp_path: Path) -> None:
    for size in (0, -1, 10**9):
        with pytest.raises(ds.InputError, match="batch_size"):
            ds.load(tmp_path, batch_size=size)


@pytest.mark.parametrize("in_flight", [0, -1])
def test_unusable_in_flight_is_refused(smoother: ds.Smoother, in_flight: int) -> None:
    """With room for no image nothing would come back, silently."""
    with pytest.raises(ds.InputError, match="in_flight"):
        list(smoother.certify_many([IMAGE], in_flight=in_flight, budget=FIXED))


def test_the_same_seed_gives_the_same_certificate(smoother: ds.Smoother) -> None:
    first, second, other = (smoother.certify(IMAGE, seed=s, budget=FIXED) for s in (1, 1, 2))
    assert first.to_json() == second.to_json()
    assert first.tally.to_dict() != other.tally.to_dict()


def test_without_a_seed_every_certificate_has_its_own(smoother: ds.Smoother) -> None:
    first, second = (smoother.certify(IMAGE, budget=FIXED) for _ in range(2))
    assert first.seed.entropy != second.seed.entropy
    assert not first.seed.fixed
    assert first.tally.to_dict() != second.tally.to_dict()


def test_counts_do_not_depend_on_batches_or_neighbours(smoother: ds.Smoother) -> None:
    images = [toys.image(0.3 + 0.05 * i, 0.5) for i in range(8)]
    budget = ds.Adaptive(600, n0=20)
    expected = [c.to_json() for c in smoother.certify_many(images, seed=4, budget=budget)]
    for batch_size, in_flight in ((1, 1), (37, 3), (4096, 50)):
        packed = ds.Smoother(smoother.bundle, smoother.engine, batch_size=batch_size)
        assert [
            c.to_json() for c in packed.certify_many(images, seed=4, budget=budget, in_flight=in_flight)
        ] == expected
    backwards = smoother.certify_many(images[::-1], seed=4, budget=budget, indices=range(7, -1, -1))
    assert [c.to_json() for c in backwards] == expected[::-1]


def test_images_of_one_run_have_their_own_noise(smoother: ds.Smoother) -> None:
    made = list(smoother.certify_many(repeat(IMAGE, 5), seed=4, budget=FIXED))
    assert len({str(c.tally.to_dict()) for c in made}) == 5
    assert [c.seed.index for c in made] == list(range(5))


@pytest.mark.parametrize(
    "noise",
    [
        ds.Noise("lattice"),
        ds.Noise(generator="Philox"),
        ds.Noise(shared=True),
        ds.Noise("table"),
        ds.Noise("table", "Philox4x32"),
        ds.Noise("table", "Philox", shared=True),
    ],
    ids=str,
)
def test_any_noise_is_replayed(smoother: ds.Smoother, noise: ds.Noise) -> None:
    """Whichever images were around it, whichever batches it was cut into."""
    images = [toys.image(k / 255, 0.6) for k in (127, 140, 150)]
    made = list(smoother.certify_many(images, noise=noise, budget=FIXED))
    for image, certificate in zip(images, made, strict=True):
        other = ds.Smoother(smoother.bundle, smoother.engine, batch_size=37)
        certificate = ds.Certificate.from_json(certificate.to_json())
        assert certificate.seed.noise == noise
        other.replay(certificate, image)


EIGHT_BITS, OFF = toys.image(127 / 255, 51 / 255), toys.image(0.7, 0.3)


@pytest.mark.parametrize("noise", [None, ds.Noise("auto", "Philox"), ds.Noise("auto", shared=True)], ids=str)
def test_by_default_the_image_decides_the_noise(smoother: ds.Smoother, noise: ds.Noise | None) -> None:
    """Image by image, in one stream; the certificate says which it was, and is replayed with that."""
    images = [EIGHT_BITS, OFF, np.rint(EIGHT_BITS * 255).astype(np.uint8), OFF]
    made = list(smoother.certify_many(images, noise=noise, seed=3, budget=FIXED))
    assert [c.seed.noise.mode for c in made] == ["table", "float", "table", "float"]
    for image, certificate in zip(images, made, strict=True):
        expected = dataclasses.replace(noise or ds.Noise(), mode=certificate.seed.noise.mode)
        asked = smoother.certify_many([image], noise=expected, seed=3, indices=[certificate.seed.index], budget=FIXED)
        assert next(asked).to_json() == certificate.to_json()
        smoother.replay(ds.Certificate.from_json(certificate.to_json()), image)
    predicted = [smoother.predict(image, noise=noise, n=50).seed.noise.mode for image in images]
    assert predicted == ["table", "float", "table", "float"]


def test_levels_that_no_table_has(tmp_path: Path) -> None:
    """By default they get float noise; a table that was asked for is refused before a pass is spent."""
    toys.write_bundle(tmp_path / "b", sigmas=(0.25, 6.0), sigma_e=6.0, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.2])
    smoother = ds.load(tmp_path / "b", threads=1)
    assert smoother.certify(EIGHT_BITS, budget=FIXED).seed.noise == ds.Noise("float")
    assert smoother.certify(EIGHT_BITS, budget=FIXED, noise=ds.Noise("lattice")).seed.noise.mode == "lattice"
    with pytest.raises(ds.InputError, match="table noise has levels up to 5, not 6; use lattice or float"):
        smoother.certify(EIGHT_BITS, budget=FIXED, noise=ds.Noise("table"))


def test_images_of_shared_noise_see_the_same(smoother: ds.Smoother) -> None:
    made = list(smoother.certify_many(repeat(IMAGE, 5), noise=ds.Noise(shared=True), budget=FIXED))
    assert len({str(c.tally.to_dict()) for c in made}) == 1


def test_certify_many_is_lazy(smoother: ds.Smoother) -> None:
    made = smoother.certify_many(repeat(IMAGE), seed=4, budget=FIXED)
    assert [next(made).seed.index for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("rule", ["interval", "paper", "multiscale", "single:0.5"])
def test_replay_finds_the_same_votes(smoother: ds.Smoother, rule: str) -> None:
    certificate = ds.Certificate.from_json(smoother.certify(IMAGE, rule=rule, budget=FIXED).to_json())
    smoother.replay(certificate, IMAGE)


@pytest.mark.parametrize("budget", [ds.Adaptive(600, n0=20), ds.AtRadius(0.2, 600, n0=20)], ids=str)
def test_replay_follows_the_looks(smoother: ds.Smoother, budget: ds.Budget) -> None:
    for certificate in smoother.certify_many([IMAGE, IMAGE], budget=budget):
        smoother.replay(certificate, IMAGE)


def test_replay_notices_invented_votes(smoother: ds.Smoother) -> None:
    certificate = smoother.certify(IMAGE, budget=FIXED)
    other = dataclasses.replace(certificate, seed=certificate.seed.at(1))
    with pytest.raises(ds.CertificateError, match="other votes"):
        smoother.replay(other, IMAGE)
    with pytest.raises(ds.CertificateError, match="image"):
        smoother.replay(certificate, toys.image(0.7, 0.31))


def test_another_precision_than_the_bundles_is_noticed(smoother: ds.Smoother) -> None:
    certificate = smoother.certify(IMAGE, budget=FIXED)
    forged = dataclasses.replace(certificate, artefact=dataclasses.replace(certificate.artefact, precision="int8"))
    for check in (smoother.verify, lambda c: smoother.replay(c, IMAGE)):
        with pytest.raises(ds.CertificateError, match=r"states precision 'int8'; the bundle .* is in fp32"):
            check(forged)


@pytest.mark.parametrize("change", [{"sigmas": (0.5, 1.0)}, {"sigma_e": 1.0}, {"classes": 3}])
def test_terms_of_another_bundle_are_noticed(smoother: ds.Smoother, change: dict[str, Any]) -> None:
    """Larger sigmas would enlarge the radius without changing a vote."""
    certificate = smoother.certify(IMAGE, budget=FIXED)
    terms = dataclasses.replace(certificate.terms, **change)
    tally = dataclasses.replace(certificate.tally, classes=terms.classes)
    forged = dataclasses.replace(certificate, terms=terms, tally=tally).recompute()
    ds.Certificate.from_json(forged.to_json())
    for check in (smoother.verify, lambda c: smoother.replay(c, IMAGE)):
        with pytest.raises(ds.CertificateError):
            check(forged)


def test_certificates_of_other_files_are_noticed(smoother: ds.Smoother, tmp_path: Path) -> None:
    toys.write_bundle(
        tmp_path / "c", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.26]
    )
    with pytest.raises(ds.CertificateError, match="other files"):
        ds.load(tmp_path / "c").verify(smoother.certify(IMAGE, budget=FIXED))


def test_one_level_needs_no_router(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "one", sigmas=(0.25,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[0.2])
    smoother = ds.load(tmp_path / "one", threads=1)
    for rule in ("interval", "paper", "single:0.25"):
        certificate = smoother.certify(IMAGE, rule=rule, budget=FIXED, seed=1)
        assert certificate.passes == 220
        assert 0 < certificate.radius <= 0.6
        assert ds.Certificate.from_json(certificate.to_json()).radius == certificate.radius
    assert smoother.predict(IMAGE, n=50).label == 1


def test_images_before_a_bad_one_are_certified(smoother: ds.Smoother) -> None:
    images = [toys.image(0.8, 0.2), toys.image(0.7, 0.2), toys.image(7, 0.2), toys.image(0.8, 0.2)]
    stream = smoother.certify_many(images, budget=ds.Fixed(100))
    assert [next(stream).seed.index for _ in range(2)] == [0, 1]
    with pytest.raises(ds.InputError, match="ranges from"):
        next(stream)


@pytest.mark.parametrize("budget", [ds.AtRadius(0.1, 3000, n0=20), ds.AtRadii((0.05, 0.15), 3000, n0=20)], ids=str)
@pytest.mark.parametrize(
    ("rule", "route"),
    [*product(("interval", "paper"), ("median", "mode", "quantile:0.4")), ("single:0.5", None)],
)
def test_decisions_in_company_are_those_that_each_image_gets_alone(
    smoother: ds.Smoother, budget: ds.Budget, rule: str, route: str | None
) -> None:
    images = [toys.image(t, u) for t, u in np.random.default_rng(0).random((12, 2))]
    asked: dict[str, Any] = {"budget": budget, "rule": rule, "route": route, "seed": 5}
    together = [certificate.to_json() for certificate in smoother.certify_many(images, **asked)]
    for index, image in enumerate(images):
        (alone,) = smoother.certify_many([image], indices=[index], **asked)
        assert alone.to_json() == together[index]
