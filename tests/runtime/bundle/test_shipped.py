"""Bundles that ship are known by name, wherever a bundle is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.bundle.reading import bundle_folder
from dualsmooth.runtime.bundle.shipped import DATA, SHIPPED, SHIPPED_BUNDLE, SHIPPED_IMAGES

NAMES = sorted(SHIPPED)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_names_what_lies_in_the_package() -> None:
    assert sorted(SHIPPED) == sorted(path.name for path in DATA.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_by_its_name(name: str, elsewhere: Path) -> None:
    found = ds.read_bundle(name)
    assert found.path == DATA / name
    line = ds.bundles()[name]
    assert "\n" not in line
    assert line.startswith(f"{len(found.classes)} classes ({found.classes[0]}")
    assert "x".join(map(str, found.input_shape)) in line
    assert all(f"{sigma:g}" in line for sigma in found.sigmas)
    image, label = ds.sample(name), ds.sample_label(name)
    assert (image.dtype, image.shape) == (np.uint8, found.input_shape)
    assert 0 <= label < len(found.classes)


def test_the_line_states_the_accuracy_that_the_manifest_does() -> None:
    metrics = json.loads((SHIPPED_BUNDLE / "manifest.json").read_text())["provenance"]["metrics"]
    share = metrics["certified_accuracy"]["interval"][metrics["radii"].index(0.5)]
    assert f"{100 * share:.1f}% at r = 0.5" in ds.bundles()["fashion-mnist"]


def test_a_bundle_in_a_folder_of_that_name_is_nearer(elsewhere: Path) -> None:
    toys.write_bundle(
        elsewhere / "fashion-mnist", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    assert ds.read_bundle("fashion-mnist").sigmas == (0.25, 0.5)
    with ds.load("fashion-mnist") as smoother:
        assert smoother.bundle.path == Path("fashion-mnist")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_other_things_of_that_name_are_not(what: str, elsewhere: Path) -> None:
    """Such as the folder of the data set."""
    path = elsewhere / "fashion-mnist"
    path.mkdir() if what == "folder" else path.write_text("")
    assert ds.read_bundle("fashion-mnist").path == SHIPPED_BUNDLE


@pytest.mark.parametrize("name", [Path("fashion-mnist"), "./fashion-mnist"])
def test_a_path_is_never_a_name(name: str | Path, elsewhere: Path) -> None:
    assert bundle_folder(name) == Path("fashion-mnist")
    with pytest.raises(ds.BundleError, match="fashion-mnist is not a directory"):
        ds.load(name)


@pytest.mark.parametrize("name", ["fashion", "Fashion-MNIST", "no/such"])
def test_unknown_names_are_refused_with_those_that_are_known(name: str, elsewhere: Path) -> None:
    with pytest.raises(ds.BundleError, match=r", or the name of a bundle that ships: .*fashion-mnist") as refused:
        ds.load(name)
    assert "\n" not in str(refused.value)


def test_samples_are_the_pictures_of_the_file_with_their_labels() -> None:
    with np.load(SHIPPED_IMAGES) as arrays:
        for index in (0, 2, len(arrays["x"]) - 1):
            image = ds.sample("fashion-mnist", index)
            assert (image.dtype, image.shape) == (np.uint8, (1, 28, 28))
            assert np.array_equal(image[0], arrays["x"][index])
            assert ds.sample_label("fashion-mnist", index) == arrays["y"][index]
        assert np.array_equal(ds.sample(), arrays["x"][:1])
    image[:] = 0
    assert ds.sample("fashion-mnist", index).any()  # each call gives a copy


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("no-such",), "no pictures ship as 'no-such'; expected .*fashion-mnist"),
        (("fashion-mnist", 200), "picture 200 of fashion-mnist; expected an index from 0 to 199"),
        (("fashion-mnist", -1), "picture -1 of"),
        (("fashion-mnist", True), "picture True of"),
        (("fashion-mnist", 1.0), "picture 1.0 of"),
        ((None,), "no pictures ship as 'None'"),
    ],
)
def test_other_samples_are_refused(arguments: tuple[object, ...], line: str) -> None:
    for call in (ds.sample, ds.sample_label):
        with pytest.raises(ds.InputError, match=line):
            call(*arguments)  # type: ignore[arg-type]


def test_the_command_line_takes_the_names(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("image.npy", ds.sample("fashion-mnist", 2))
    assert main(["inspect"]) == 0
    assert capsys.readouterr().out.startswith("fashion-mnist: 10 classes")
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ds.bundles()
    assert main(["inspect", "fashion-mnist"]) == 0
    assert main(["predict", "fashion-mnist", "image.npy", "-n", "100", "--seed", "1"]) == 0
    assert "Trouser (class 1)" in capsys.readouterr().out
    assert main(["certify", "fashion-mnist", "image.npy", "--budget", "fixed:200", "--json"]) == 0
    Path("certificate.json").write_text(capsys.readouterr().out)
    assert main(["verify", "certificate.json", "--bundle", "fashion-mnist", "--replay", "image.npy", "--strict"]) == 0
    assert main(["triton", "fashion-mnist", "--out", "repository"]) == 0
    assert main(["evaluate", "fashion-mnist", "--dataset", f"npz:{SHIPPED_IMAGES}", "--max", "1", "--budget",
                 "fixed:200", "--out", "results.jsonl"]) == 0  # fmt: skip
    for command in (["certify", "fashion"], ["inspect", "fashion"], ["triton", "fashion", "--out", "other"]):
        assert main([*command, "image.npy"] if command[0] == "certify" else command) == 2
        assert "ships: fashion-mnist" in capsys.readouterr().err


@pytest.mark.slow
def test_export_takes_the_names(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["export", "fashion-mnist", "--out", "again"]) == 0
    assert ds.read_bundle(Path("again")).classes == ds.read_bundle("fashion-mnist").classes
    shutil.rmtree("again")
    (elsewhere / "fashion-mnist").mkdir()  # a folder that is there is what is meant: it may be a run
    assert main(["export", "fashion-mnist", "--out", "again"]) == 2
    capsys.readouterr()


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert ds.__version__ == version("dualsmooth")
    assert "__version__" in dir(ds)
