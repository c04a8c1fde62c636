"""Bundles with preprocessing take pictures of any size, and their certificates are about the network's input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toys
from PIL import Image

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.datasets.single_images import read_image
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.requests import accept
from dualsmooth.runtime.smoothing.artefact import image_sha256

BUDGET = ds.Fixed(300, n0=30)
HOW = Preprocessing(toys.SHAPE, 8)
"""Pictures become 8 pixels on their shorter side, and the two in the middle are the input (t, u)."""
WORDS = "shorter side to 8 pixels (bilinear), the middle 1 x 2, grey"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuts = {"estimator_cuts": [0.6], "classifier_cuts": [0.2, 0.25]}
    path = tmp_path_factory.mktemp("sized") / "bundle"
    return toys.write_bundle(path, sigmas=(0.25, 0.5), sigma_e=0.5, preprocessing=HOW, **cuts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def smoother(bundle: Path) -> ds.Smoother:
    return ds.load(bundle, threads=1)


PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)


def test_a_photo_is_certified_however_it_is_passed(smoother: ds.Smoother, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", PHOTO[None])
    pixels = smoother.check_image(PHOTO)
    assert pixels.shape == toys.SHAPE
    assert (np.rint(255 * pixels) / np.float32(255) == pixels).all()  # on the lattice
    small = np.asarray(Image.fromarray(PHOTO).resize((12, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, small[4:5, 5:7][None] / np.float32(255))  # round half to even: rows from 4
    photos = [
        PHOTO,
        PHOTO[None],
        PHOTO[:, :, None],
        Image.fromarray(PHOTO),
        tmp_path / "a.png",
        str(tmp_path / "a.npy"),
    ]
    found = {smoother.certify(photo, budget=BUDGET, seed=1).to_json() for photo in [*photos, pixels]}
    assert len(found) == 1
    assert repr(smoother.bundle) == "<Bundle bundle: 2 classes, pictures of any size for 1x1x2, sigmas 0.25, 0.5, fp32>"
    assert len({smoother.predict(photo, n=100, seed=1).to_json() for photo in photos}) == 1
    colours = Image.fromarray(PHOTO.repeat(3).reshape(40, 60, 3))
    np.testing.assert_array_equal(smoother.check_image(colours), pixels)


def test_the_certificate_names_it_and_is_about_its_result(smoother: ds.Smoother) -> None:
    certificate = smoother.certify(PHOTO, budget=BUDGET, seed=1)
    stated = json.loads(certificate.to_json())["artefact"]
    assert stated["preprocessing"] == {"shape": [1, 1, 2], "resize": 8, "resampling": "bilinear", "colour": "grey"}
    assert stated["image_sha256"] == image_sha256(smoother.check_image(PHOTO))
    about = f"the radius is about the network's input, made from pictures so: {WORDS}"
    assert certificate.artefact.about == about
    assert about in repr(certificate.show(PHOTO))
    again = ds.Certificate.from_json(certificate.to_json())
    assert again == certificate
    smoother.replay(again, PHOTO)
    assert "preprocessing" not in json.dumps(json.loads(smoother.certify(PHOTO, budget=BUDGET).to_json())["terms"])


def test_another_preprocessing_than_the_bundles_is_refused(smoother: ds.Smoother, tmp_path: Path) -> None:
    said = json.loads(smoother.certify(PHOTO, budget=BUDGET, seed=1).to_json())
    for change in ({"resize": 9}, {"resampling": "box"}, {"shape": [1, 2, 2]}):
        artefact = said["artefact"] | {"preprocessing": said["artefact"]["preprocessing"] | change}
        other = ds.Certificate.from_dict(said | {"artefact": artefact})
        with pytest.raises(ds.CertificateError, match="states another preprocessing of pictures than the bundle"):
            smoother.verify(other)
    without = {name: value for name, value in said["artefact"].items() if name != "preprocessing"}
    with pytest.raises(ds.CertificateError, match="states another preprocessing"):
        smoother.verify(ds.Certificate.from_dict(said | {"artefact": without}))
    for damaged in (None, {}, {"shape": [1, 1]}, said["artefact"]["preprocessing"] | {"colour": "rgb"}, "rgb"):
        artefact = said["artefact"] | {"preprocessing": damaged}
        with pytest.raises(ds.CertificateError, match=r"artefact: preprocessing"):
            ds.Certificate.from_dict(said | {"artefact": artefact})


def test_what_cannot_be_resized_is_refused(smoother: ds.Smoother, tmp_path: Path) -> None:
    with pytest.raises(ds.InputError, match=r"is float32 \[1, 40, 60\]; expected the network's input \[1, 1, 2\]"):
        smoother.certify(np.zeros((1, 40, 60), np.float32))
    with pytest.raises(ds.InputError, match=r"image is uint8 \[5, 1, 1, 2\].*: this is a batch, pass each"):
        smoother.certify(np.zeros((5, 1, 1, 2), np.uint8))
    Image.new("L", (1, 20_000)).save(tmp_path / "strip.png")
    with pytest.raises(ds.InputError, match="cut out the part that is meant"):
        read_image(tmp_path / "strip.png", toys.SHAPE, Preprocessing(toys.SHAPE, 9_000))
    plain = ds.load(toys.two_levels(tmp_path / "plain"), threads=1)
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", PHOTO[None], Image.fromarray(PHOTO)):
        with pytest.raises(
            ds.InputError, match=r"resize it, or give the bundle its preprocessing: dualsmooth export BUNDLE --resize"
        ):
            plain.certify(image)


def test_pictures_that_pillow_takes_for_bombs_are_one_line(
    smoother: ds.Smoother, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ds.InputError, match=r"cannot read .*a\.png \(Image size \(2400 pixels\) exceeds limit"):
        smoother.certify(tmp_path / "a.png")


def test_data_sets_of_any_size(smoother: ds.Smoother, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    for name in ("class 0", "class 1"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, sides in enumerate(((30, 40), (40, 30), (64, 64))):
            pixels = rng.integers(0, 256, (*sides, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    folder = f"imagefolder:{tmp_path / 'photos'}"
    files = sorted((tmp_path / "photos").rglob("*.png"))
    out = tmp_path / "r.jsonl"
    data = load_dataset(folder, split="train")
    evaluate(smoother, data, out, indices=range(len(data)), budget=BUDGET)
    known = {image_sha256(smoother.check_image(path)) for path in files}
    rows = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert len(rows) == len(data)
    assert {row["certificate"]["artefact"]["image_sha256"] for row in rows} <= known
    page = tmp_path / "page.html"
    assert main(["report", str(out), "--dataset", folder, "--split", "train", "--out", str(page)]) == 0
    assert WORDS in page.read_text()
    arrays = Dataset(
        "arrays", rng.integers(0, 256, (3, 3, 20, 24), np.uint8), np.array([0, 1, 0]), ("class 0", "class 1")
    )
    evaluate(smoother, arrays, tmp_path / "a.jsonl", indices=range(3), budget=BUDGET)
    np.savez(
        tmp_path / "d.npz", x=arrays.images.transpose(0, 2, 3, 1), y=arrays.labels, classes=np.array(arrays.classes)
    )
    again = ["report", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "two.html")]
    assert main([*again, "--dataset", f"npz:{tmp_path / 'd.npz'}"]) == 0


def test_the_commands_say_what_radii_are_about(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.jpg", quality=95)
    photo, paper = str(tmp_path / "a.jpg"), tmp_path / "c.json"
    assert main(["certify", str(bundle), photo, "--budget", "fixed:300"]) == 0
    assert f"; the radius is about the network's input, made from pictures so: {WORDS}" in capsys.readouterr().out
    assert main(["certify", str(bundle), photo, "--budget", "fixed:300", "--json"]) == 0
    paper.write_text(capsys.readouterr().out)
    assert main(["verify", str(paper), "--bundle", str(bundle), "--replay", photo, "--strict"]) == 0
    out = capsys.readouterr().out
    assert "replayed votes are identical" in out
    assert f"note: the radius is about the network's input, made from pictures so: {WORDS}" in out
    assert main(["predict", str(bundle), photo]) == 0
    assert main(["inspect", str(bundle)]) == 0
    assert f"pictures   of any size: {WORDS}; radii are about the result" in capsys.readouterr().out


def test_a_server_takes_the_networks_input_and_small_pictures(smoother: ds.Smoother) -> None:
    """Clients of ours make the input themselves, as the manifest that the server tells says."""
    for image in (smoother.check_image(PHOTO), PHOTO):
        ticket = accept(smoother, Limits(), image, {"budget": "fixed:300"}, Collected())
        np.testing.assert_array_equal(ticket.job.image, smoother.check_image(PHOTO))
    with pytest.raises(ds.InputError, match="expected at most 100 on this server"):
        accept(smoother, Limits(max_image_values=100), PHOTO, {}, Collected())
