"""Every format of the table, on a small data set as others write it: read in full, or refused in one line."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_sets import SAMPLES, Sample, named

from dualsmooth.runtime.datasets.dataset import Format
from dualsmooth.runtime.datasets.formats import DETAILS, FORMATS, NAMES, load_dataset
from dualsmooth.runtime.errors import InputError

ROOT = Path(__file__).parents[3]
every = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.kind)


@pytest.fixture
def sample(format: Format, tmp_path: Path) -> Sample:
    folder = tmp_path / "written"
    folder.mkdir()
    return SAMPLES[format.form](folder)


def refused(name: str, **options: object) -> str:
    """The one line that refuses a data set, when it is named or when its pixels are read."""
    with pytest.raises(InputError) as caught:
        np.asarray(load_dataset(name, **options).images)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_format_has_a_sample_and_its_own_name() -> None:
    assert set(SAMPLES) == {format.form for format in FORMATS}
    assert len({format.kind for format in FORMATS}) == len(FORMATS)


@every
def test_what_others_wrote_is_read(format: Format, sample: Sample) -> None:
    name, folder = named(format.form, sample.place, sample.size)
    test, train = (load_dataset(name, split=split, data_dir=folder) for split in ("test", "train"))
    assert test.name == name
    assert test.images.shape == sample.images.shape
    pixels = np.asarray(test.images)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - sample.images).max() <= sample.slack
    np.testing.assert_array_equal(test.images[3], pixels[3])
    np.testing.assert_array_equal(np.asarray(test.images[np.array([4, 1])]), pixels[[4, 1]])
    assert test.labels.tolist() == list(sample.labels)
    assert test.labels.dtype == train.labels.dtype == np.int64
    assert (len(test), len(train)) == (5, 10)
    assert np.asarray(train.images).shape == (10, *pixels.shape[1:])
    assert test.classes == train.classes
    assert len(test.classes) >= 2
    _, *shape = test.images.shape
    fitted = test.fitted(test.classes[::-1], (shape[0], shape[1], shape[2]))
    assert fitted.labels.tolist() == [len(test.classes) - 1 - label for label in sample.labels]


@every
def test_it_travels_to_other_processes(format: Format, sample: Sample) -> None:
    name, folder = named(format.form, sample.place, sample.size)
    here = load_dataset(name, data_dir=folder)
    there = pickle.loads(pickle.dumps(here))
    np.testing.assert_array_equal(np.asarray(there.images), np.asarray(here.images))
    assert (there.name, there.classes, there.labels.tolist()) == (here.name, here.classes, here.labels.tolist())


@every
def test_its_classes_may_be_named_otherwise(format: Format, sample: Sample) -> None:
    name, folder = named(format.form, sample.place, sample.size)
    count = len(load_dataset(name, data_dir=folder).classes)
    mine = tuple(f"mine {number}" for number in range(count))
    assert load_dataset(name, data_dir=folder, classes=mine).classes == mine
    assert f"has {count} classes" in refused(name, data_dir=folder, classes=mine[1:])


@every
def test_wrong_places_are_refused(format: Format, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"neither a folder nor an archive")
    for place in ("nowhere", "empty", "file"):
        name, folder = named(format.form, tmp_path / place)
        for split in ("train", "test"):
            assert place in refused(name, split=split, data_dir=folder)
    name, folder = named(format.form, sample.place, sample.size)
    assert "expected train or test" in refused(name, split="val", data_dir=folder)


@every
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"junk" + b, lambda b: b[: len(b) // 2]])
def test_damaged_files_are_refused(format: Format, sample: Sample, damage: object, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "written", whole)
    name, folder = named(format.form, sample.place, sample.size)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    splits = {path: "train" if "train" in str(path) or "data_batch" in path.name else "test" for path in files}
    for path, split in splits.items():
        good = (whole / path).read_bytes()
        (tmp_path / "written" / path).write_bytes(damage(good))  # type: ignore[operator]
        refused(name, split=split, data_dir=folder)
        (tmp_path / "written" / path).write_bytes(good)
    load_dataset(name, data_dir=folder)


@every
def test_its_name_is_its_own_and_is_listed_everywhere(format: Format) -> None:
    wrong = format.kind if ":" in format.form else f"{format.kind}:there"
    for name in (wrong, f"{format.kind}s", format.kind.upper(), f" {format.kind}"):
        message = refused(name)
        assert "is unknown" in message
        assert NAMES in message
    if ":" in format.form:
        refused(f"{format.kind}:")
    assert "\n" not in format.help
    assert f"{format.form}: {format.help}" in DETAILS
    assert f"\n| `{format.form}`" in (ROOT / "docs" / "data.md").read_text()
