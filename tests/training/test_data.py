from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from dualsmooth.runtime.errors import InputError
from dualsmooth.training import Config
from dualsmooth.training.data import Augmentation, batches, load_training_data


def test_the_split_is_a_partition_chosen_by_seed(tiny: Config, tiny_npz: Path) -> None:
    data = load_training_data(tiny)
    again = load_training_data(tiny)
    other = load_training_data(dataclasses.replace(tiny, seed=8))
    assert len(data.validation_labels) == 20
    assert data.classes == ("left", "middle", "right")
    both = np.concatenate([data.images, data.validation_images])
    with np.load(tiny_npz) as arrays:
        assert sorted(x.tobytes() for x in both) == sorted(x.tobytes() for x in arrays["x"])
    np.testing.assert_array_equal(data.images, again.images)
    assert not np.array_equal(data.validation_images, other.validation_images)


def test_channel_statistics(tiny: Config) -> None:
    data = load_training_data(tiny)
    (mean,), (std,) = data.channel_statistics()
    assert mean == pytest.approx(float((data.images / 255).mean()))
    assert std == pytest.approx(float((data.images / 255).std()))


def test_too_few_images_are_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match="lower --validation"):
        load_training_data(dataclasses.replace(tiny, validation=179))


@pytest.mark.parametrize("augmentation", [Augmentation(2, True), Augmentation(1, False), Augmentation(0, True)])
def test_augmentation_makes_shifted_and_flipped_copies(augmentation: Augmentation) -> None:
    images = torch.randint(1, 256, (64, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = augmentation(images, torch.Generator().manual_seed(1))
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    seen = set()
    shifts = range(-augmentation.shift, augmentation.shift + 1)
    for before, after in zip(images, result, strict=True):
        matches = [
            (dy, dx, flip)
            for dy in shifts
            for dx in shifts
            for flip in (False, True)
            if torch.equal(after, _moved(before.flip(-1) if flip else before, dy, dx))
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {flip for _, _, flip in seen} == ({False, True} if augmentation.flip else {False})
    assert {dy for dy, _, _ in seen} == {dx for _, dx, _ in seen} == set(shifts)


def _moved(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                result[:, y, x] = image[:, y + dy, x + dx]
    return result


def test_batches_are_shuffled_and_never_repeat() -> None:
    seen = torch.cat(list(batches(10, 3, torch.Generator().manual_seed(0))))
    assert len(seen) == len(set(seen.tolist())) == 9
    assert [len(b) for b in batches(2, 8, torch.Generator())] == [2]


def named(tiny: Config, tmp_path: Path, **arrays: object) -> Config:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    return dataclasses.replace(tiny, dataset=f"npz:{tmp_path / 'd.npz'}", validation=1)


def test_labels_count_the_outputs_of_the_networks_that_are_given(tiny: Config, tmp_path: Path) -> None:
    x = np.zeros((4, 8, 8), np.uint8)
    config = named(tiny, tmp_path, x=x, y=np.array([0, 1, 0, 1]), classes=np.array(["apple", "zebra"]))
    other = dataclasses.replace(config, classes=("zebra", "kiwi", "Apple"))
    data = load_training_data(other)
    both = [*data.labels.tolist(), *data.validation_labels.tolist()]
    assert sorted(both) == [0, 0, 2, 2]
    assert data.classes == ("zebra", "kiwi", "Apple")
    for classes in (("zebra", "kiwi"), ("a", "b")):
        with pytest.raises(InputError, match="classes that the network has not: 'apple'"):
            load_training_data(dataclasses.replace(config, classes=classes))


def test_experts_of_a_bundle_bring_the_order_of_its_classes(tiny: Config, tmp_path: Path) -> None:
    bundles = []
    for number, names in enumerate((("zebra", "apple"), ("apple", "zebra"))):
        path = toys.write_bundle(
            tmp_path / f"b{number}", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.5, 0.5]
        )
        text = (path / "manifest.json").read_text().replace("class 0", names[0]).replace("class 1", names[1])
        (path / "manifest.json").write_text(text)
        bundles.append(path / "classifier_0.onnx")
    x = np.zeros((4, 1, 2), np.uint8)
    config = named(tiny, tmp_path, x=x, y=np.array([0, 0, 0, 1]), classes=np.array(["apple", "zebra"]))
    with_experts = dataclasses.replace(config, experts=(f"0.25={bundles[0]}",))
    data = load_training_data(with_experts)
    assert data.classes == ("zebra", "apple")
    assert sorted([*data.labels, *data.validation_labels]) == [0, 1, 1, 1]
    bundles[0].rename(tmp_path / "alone.onnx")
    alone = dataclasses.replace(config, experts=(f"0.25={tmp_path / 'alone.onnx'}",))
    assert load_training_data(alone).classes == ("apple", "zebra")
    assert load_training_data(alone, ["zebra", "apple"]).classes == ("zebra", "apple")


def test_experts_of_two_bundles_must_agree(tiny: Config, tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        path = toys.write_bundle(
            tmp_path / name, sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.5, 0.5]
        )
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text().replace("class 0", name))
        paths.append(path / "classifier_0.onnx")
    config = dataclasses.replace(tiny, experts=(f"0.25={paths[0]}", f"0.5={paths[1]}"))
    with pytest.raises(InputError, match="bundles with other classes"):
        load_training_data(config)


@pytest.mark.parametrize("labels", [[1, 2, 1, 2], [0, 2, 2, 0], [0, 1, 10**9, 0], [-1, 0, 1, 1]])
def test_classes_without_names_must_all_occur(tiny: Config, tmp_path: Path, labels: list[int]) -> None:
    config = named(tiny, tmp_path, x=np.zeros((4, 8, 8), np.uint8), y=np.array(labels))
    with pytest.raises(InputError, match="and no names of classes; expected each of 0, 1, 2"):
        load_training_data(config)


def test_cifar10_is_trained_on_with_its_own_augmentation(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3072), np.uint8)
    for number in range(1, 6):
        content = {"data": images + np.uint8(number), "labels": [0, 1, 2, 9, 4, 5]}
        (tmp_path / f"data_batch_{number}").write_bytes(pickle.dumps(content, protocol=2))
    data = load_training_data(Config("cifar10", data_dir=str(tmp_path), validation=4))
    assert (data.input_shape, len(data.images), len(data.classes)) == ((3, 32, 32), 26, 10)
    assert data.augmentation == Augmentation(shift=4, flip=True)


@pytest.mark.parametrize(("said", "expected"), [
    (True, Augmentation()), (False, Augmentation()), ("cifar10", Augmentation(shift=4, flip=True)),
])  # fmt: skip
def test_another_data_sets_augmentation_may_be_named(tiny: Config, said: bool | str, expected: Augmentation) -> None:
    assert load_training_data(dataclasses.replace(tiny, augment=said)).augmentation == expected


def test_an_unknown_augmentation_is_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match=r"augment is 'mnist'; expected true, false, or one of fashion-mnist"):
        load_training_data(dataclasses.replace(tiny, augment="mnist"))
