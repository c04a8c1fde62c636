"""Certificates as people see them: one line, a text, and HTML that is drawn from the same radii as the report."""

from __future__ import annotations

import base64
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.smoothing.drawing import LEFT, RIGHT, WIDTH

HOSTILE = '</div></style><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\n\x1b[2J'
BUDGET = ds.Fixed(500, n0=50)
IMAGE = np.array([[[170, 60]]], np.uint8)


@pytest.fixture(scope="module")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> ds.Smoother:
    folder = toys.write_bundle(
        tmp_path_factory.mktemp("view") / "toy",
        sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.25],
    )  # fmt: skip
    return ds.load(folder, threads=1)


@pytest.fixture(scope="module")
def certificate(smoother: ds.Smoother) -> ds.Certificate:
    return smoother.certify(IMAGE, budget=BUDGET, seed=1)


@pytest.fixture(scope="module")
def abstained(smoother: ds.Smoother) -> ds.Certificate:
    found = smoother.certify(np.array([[[60, 60]]], np.uint8), budget=ds.Fixed(20, n0=20), seed=1)
    assert found.abstained
    return found


def test_each_is_one_line(smoother: ds.Smoother, certificate: ds.Certificate, abstained: ds.Certificate) -> None:
    assert repr(smoother.bundle) == "<Bundle toy: 2 classes, images 1x1x2, sigmas 0.25, 0.5, fp32>"
    assert repr(smoother).startswith("<Smoother toy: 2 classes, images 1x1x2, sigmas 0.25, 0.5, fp32, on cpu, onnxr")
    c = certificate
    radius = f"{int(c.radius * 1e4) / 1e4:.4f}"
    assert repr(c) == (
        f"<Certificate: class 1 (class 1), radius {radius}, sigma {c.sigma:g}, {c.passes} passes, confidence 0.999, "
        "fixed seed>"
    )
    assert repr(abstained).startswith(f"<Certificate: abstained, sigma {abstained.sigma:g}, {abstained.passes} passes")
    assert repr(c.recompute(alpha=0.01)).endswith(", confidence 0.99, fixed seed, recomputed>")
    assert repr(smoother.predict(IMAGE, n=100)) == "<Prediction: class 1 (class 1), 200 passes, confidence 0.999>"
    hostile = replace(c, classes=(HOSTILE, HOSTILE))
    for text in (repr(hostile), repr(replace(smoother.bundle, path=Path("a\x1bb")))):
        assert text.isprintable()


def test_names_are_for_people_and_no_part_of_it(
    smoother: ds.Smoother, certificate: ds.Certificate, abstained: ds.Certificate
) -> None:
    assert certificate.class_name == "class 1" == smoother.predict(IMAGE, n=100).class_name
    assert abstained.class_name is None
    read = ds.Certificate.from_json(certificate.to_json())
    assert read == certificate
    assert (read.class_name, read.picture) == (None, None)
    assert "radius" in repr(read)
    assert repr(read).startswith("<Certificate: class 1, radius")
    assert not {"classes", "picture"} & set(json.loads(certificate.to_json()))
    found = smoother.predict(IMAGE, n=100)
    assert "classes" not in json.loads(found.to_json())
    assert ds.Prediction.from_json(found.to_json()) == found
    again = pickle.loads(pickle.dumps(certificate))
    assert (again.class_name, again.to_json()) == ("class 1", certificate.to_json())


def test_the_text_says_label_radius_levels_and_what_speaks_against_it(
    certificate: ds.Certificate, abstained: ds.Certificate
) -> None:
    lines = repr(certificate.show()).splitlines()
    radius = f"{int(certificate.radius * 1e3) / 1e3:.3f}"
    assert lines[0] == f"class 1 (class 1): no change smaller than {radius} (L2) can alter that, at confidence 0.999"
    rows = [line.replace("▸", " ").split() for line in lines[2:4]]
    outcome = certificate.outcome
    assert [[float(cell) for cell in row] for row in rows] == [
        [sigma, *(np.floor(1e3 * r) / 1e3 for r in (outcome.exclusion[level], outcome.class_radii[level]))]
        for level, sigma in enumerate(certificate.terms.sigmas)
    ]
    assert [line.startswith("▸") for line in lines[2:4]].index(True) == outcome.route
    assert f"{certificate.passes} passes" in lines[4]
    assert lines[5:] == ["the seed was chosen by a person, who may have tried several"]
    assert "abstained: the votes do not settle the label (at" in repr(abstained.show())
    assert replace(abstained.outcome, class_radius=0.5).unsettled.startswith("the noise level")


def test_the_picture_is_kept_by_certify_alone(smoother: ds.Smoother, certificate: ds.Certificate) -> None:
    """Streams need constant memory; their certificates hold the hash, which the picture must have."""
    assert shown_picture(certificate) is not None
    streamed = next(iter(smoother.certify_many([IMAGE], budget=BUDGET, seed=1)))
    assert streamed == certificate
    assert (streamed.picture, streamed.class_name) == (None, "class 1")
    assert "<img" not in streamed.show().html
    for image in (IMAGE, IMAGE.astype(np.float32) / np.float32(255)):
        np.testing.assert_array_equal(shown_picture(streamed, image), IMAGE[0])
    with pytest.raises(ds.CertificateError, match="not the one that the certificate is about"):
        streamed.show(IMAGE + np.uint8(1))
    for wrong in (IMAGE.astype(np.int64), "a.png", [1, 2], np.zeros(3, np.uint8)):
        with pytest.raises(ds.DualSmoothError):
            streamed.show(wrong)


def test_the_picture_is_a_copy(smoother: ds.Smoother) -> None:
    image = IMAGE.astype(np.float32) / np.float32(255)
    certificate = smoother.certify(image, budget=ds.Fixed(50), seed=1)
    image[:] = 0
    np.testing.assert_array_equal(shown_picture(certificate), IMAGE[0])


def shown_picture(certificate: ds.Certificate, image: np.ndarray | None = None) -> np.ndarray:
    source = str(tree(certificate.show(image).html).find("img").attrib["src"])  # type: ignore[union-attr]
    head, data = source.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data))))


def tree(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html)


def bars(html: str) -> list[tuple[str, float]]:
    """The colour of each bar, and its length as a share of the room for bars."""
    found = [r for r in tree(html).iter("rect") if r.attrib["height"] == "15"]
    return [(r.attrib["fill"], float(r.attrib["width"]) / (WIDTH - LEFT - RIGHT)) for r in found]


def test_bars_are_as_long_as_their_radii(certificate: ds.Certificate) -> None:
    outcome = certificate.outcome
    most = 1.16 * max(*outcome.exclusion, *outcome.class_radii, outcome.radius)
    for level in range(2):
        for bar, radius in enumerate((outcome.exclusion[level], outcome.class_radii[level])):
            colour, length = bars(certificate.show().html)[2 * level + bar]
            assert colour == ("var(--s1)", "var(--s0)")[bar]
            assert length == pytest.approx(max(radius / most, 1 / (WIDTH - LEFT - RIGHT)), abs=1e-4)


def test_rules_without_levels_have_no_bars(certificate: ds.Certificate) -> None:
    bare = replace(certificate, outcome=replace(certificate.outcome, exclusion=(), class_radii=()))
    assert "<svg" not in bare.show().html
    assert len(repr(bare.show()).splitlines()) == len(repr(certificate.show()).splitlines()) - 3


def test_hostile_names_stay_text(certificate: ds.Certificate) -> None:
    html = replace(certificate, classes=(HOSTILE, HOSTILE)).show().html
    tags = {element.tag for element in tree(html).iter()}
    assert tags == {"div", "style", "img", "p", "b", "small", "svg", "text", "rect", "line"}
    said = "".join(tree(html).find("div/p").itertext())  # type: ignore[union-attr]
    assert said.startswith(HOSTILE.replace("\n", "?").replace("\x1b", "?"))
