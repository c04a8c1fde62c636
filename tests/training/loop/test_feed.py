from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config, load_run, train
from dualsmooth.training.data import Augmentation, load_training_data
from dualsmooth.training.loop import loop
from dualsmooth.training.loop.feed import feed_of
from dualsmooth.training.stages.classifier import train_classifier


@pytest.fixture(scope="session")
def pictures(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run on two class folders, 24x20 pixels: bright above or bright below."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(120):
        pixels = generator.integers(0, 60, (20, 24, 3), np.uint8)
        pixels[10 * (number % 2) : 10 * (number % 2) + 10] += 150
        folder = root / "train" / ("above", "below")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (root / "val" / folder.name).mkdir(parents=True, exist_ok=True)
    settings = dataclasses.replace(tiny.classifier, epochs=4)
    return dataclasses.replace(tiny, dataset=f"imagefolder:{root}@12", classifier=settings)


def test_files_give_what_memory_gives(pictures: Config) -> None:
    data = dataclasses.replace(load_training_data(pictures), augmentation=Augmentation(shift=2, flip=True))
    whole = dataclasses.replace(data, images=np.asarray(data.images))
    rows = np.array([7, 3, 50, 9, 20, 31, 2])
    batches = [torch.tensor([0, 6]), torch.tensor([5]), torch.tensor([1, 2, 3]), torch.tensor([4])]
    files, memory = feed_of(data, rows, "cpu"), feed_of(whole, rows, "cpu")
    found = []
    for index in files.ahead(iter(batches), (1, 2)):
        expected = memory(index, torch.Generator().manual_seed(5))
        assert torch.equal(files(index, torch.Generator().manual_seed(5)), expected)
        found.append(index)
    assert [index.tolist() for index in found] == [index.tolist() for index in batches]
    assert data.channel_statistics()[0] == pytest.approx(whole.channel_statistics()[0])


def test_crops_depend_on_the_key_and_the_row_alone(pictures: Config) -> None:
    data = dataclasses.replace(load_training_data(pictures), augmentation=Augmentation(crop=0.3))
    feed, unused = feed_of(data, np.arange(10), "cpu"), torch.Generator()

    def crops(key: tuple[int, ...], *batches: list[int]) -> dict[int, bytes]:
        order = iter([torch.tensor(batch) for batch in batches])
        pairs = [
            (i, x) for index in feed.ahead(order, key) for i, x in zip(index.tolist(), feed(index, unused), strict=True)
        ]
        return {i: x.numpy().tobytes() for i, x in pairs}

    first = crops((3,), [0, 1], [2, 3])
    assert crops((3,), [3, 2, 1, 0]) == first
    assert crops((4,), [0, 1, 2, 3]) != first


def test_training_from_files_learns_and_resumes_exactly(
    pictures: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_training_data(pictures)
    whole = train_classifier(tmp_path / "a.pt", data, pictures, levels=pictures.sigmas)
    images = torch.from_numpy(np.asarray(data.validation_images)) / 255.0
    assert (whole(images).argmax(1) == torch.from_numpy(data.validation_labels)).float().mean() > 0.8

    def die(path: Path, epoch: int, **values: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "append_history", die)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path / "b.pt", data, pictures, levels=pictures.sigmas)
    resumed = train_classifier(tmp_path / "b.pt", data, pictures, levels=pictures.sigmas)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_picture_that_cannot_be_read_stops_the_training(pictures: Config, tmp_path: Path) -> None:
    data = load_training_data(pictures)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    paths = np.array([*data.images.paths[:40], str(bad).encode()])  # type: ignore[union-attr]
    broken = dataclasses.replace(data, images=dataclasses.replace(data.images, paths=paths), labels=data.labels[:41])
    broken.__dict__["_statistics"] = data.channel_statistics()
    settings = dataclasses.replace(pictures.classifier, batch_size=41)
    with pytest.raises(InputError, match=r"cannot read .*bad\.png"):
        train_classifier(tmp_path / "c.pt", broken, pictures, levels=(0.5,), settings=settings)


@pytest.mark.slow
def test_a_run_says_how_it_resized(pictures: Config, tmp_path: Path) -> None:
    """For the bundle that is exported from it."""
    once = dataclasses.replace(pictures, classifier=dataclasses.replace(pictures.classifier, epochs=1))
    train(once, tmp_path / "run", threads=1)
    assert load_run(tmp_path / "run").record["resize"] == 12
