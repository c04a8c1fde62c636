"""CIFAR-10 batches in the published layout, damaged and hostile ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from data_sets import python2_batch

from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError

RNG = np.random.default_rng(0)

PIXELS = RNG.integers(0, 256, (4, 3, 32, 32), np.uint8)


def cifar(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(python2_batch(PIXELS + np.uint8(number), [number, 0, 9, 3]))
    (folder / "test_batch").write_bytes(python2_batch(PIXELS, [8, 7, 6, 5]))
    return root


def test_cifar10_as_its_authors_wrote_it(tmp_path: Path) -> None:
    test = load_dataset("cifar10", data_dir=cifar(tmp_path))
    np.testing.assert_array_equal(test.images, PIXELS)
    assert test.labels.tolist() == [8, 7, 6, 5]
    assert test.classes[8] == "ship"
    train = load_dataset("cifar10", split="train", data_dir=tmp_path / "cifar-10-batches-py")
    assert train.images.shape == (20, 3, 32, 32)
    assert train.labels[[0, 4, 8]].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(train.images[16:], PIXELS + np.uint8(5))


def test_our_reading_of_a_python2_batch_is_that_of_pickle() -> None:
    values = pickle.loads(python2_batch(PIXELS, [8, 7, 6, 5]), encoding="bytes")
    np.testing.assert_array_equal(values[b"data"].reshape(PIXELS.shape), PIXELS)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar10_written_again_by_python3(tmp_path: Path, protocol: int) -> None:
    values = {"data": PIXELS.reshape(4, -1), "labels": [1, 2, 3, 4]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(values, protocol))
    np.testing.assert_array_equal(load_dataset("cifar10", data_dir=tmp_path).images, PIXELS)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_code_in_a_batch_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Hostile(), {"data": Hostile(), "labels": [1]}, {"labels": [1], "data": eval}):
        for protocol in range(6):
            Path("test_batch").write_bytes(pickle.dumps(content, protocol))
            refused("cifar10", data_dir=tmp_path)
    for names in ("os", "builtins", "numpy.core"):
        Path("test_batch").write_bytes(python2_batch(PIXELS, [1, 2, 3, 4], names=names))
        refused("cifar10", data_dir=tmp_path)
    assert not Path("executed").exists()


def refused(name: str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_batches_are_refused(tmp_path: Path) -> None:
    whole = python2_batch(PIXELS, [1, 2, 3, 4])
    path = tmp_path / "test_batch"
    assert "no test_batch" in refused("cifar10", data_dir=tmp_path)
    assert "--data-dir" in refused("cifar10")
    good = {"data": PIXELS.reshape(4, -1), "labels": [1, 2, 3, 4]}
    contents = [
        b"", b"junk", whole[:100], whole[:-200], whole.replace(b"M\x00\x0c", b"M\x01\x0c"), b"\x80\x02].",
        *(pickle.dumps({**good, **change}) for change in (
            {"labels": [1, 2, 3]}, {"labels": [1, 2, 3, 10]}, {"labels": [1, 2, 3, "4"]}, {"labels": None},
            {"data": PIXELS.reshape(4, -1).astype(np.int64)}, {"data": PIXELS}, {"data": [1]},
            {"data": np.asfortranarray(PIXELS.reshape(4, -1))},
        )),
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        assert "is not a CIFAR-10 batch" in refused("cifar10", data_dir=tmp_path)
