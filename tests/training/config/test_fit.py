"""Settings that fit themselves to few images."""

from __future__ import annotations

import dataclasses

from dualsmooth.training import ClassifierConfig, Config, LabelConfig
from dualsmooth.training.config import fitted


def test_64_images_are_enough_and_each_change_is_one_line() -> None:
    config, lines = fitted(Config("npz:few.npz"), 64)
    assert (config.validation, config.labels.images, config.metrics.images) == (12, 52, 12)
    assert (config.classifier.batch_size, config.estimator.batch_size) == (8, 8)
    assert len(lines) == 5
    assert all("because there are only 64 training images" in line and "\n" not in line for line in lines)


def test_what_fits_is_left_as_it_is() -> None:
    """Fashion-MNIST, CIFAR-10 and ImageNet have more than enough."""
    for images in (50_000, 60_000, 1_281_167):
        assert fitted(Config("d"), images) == (Config("d"), [])


def test_fitting_twice_changes_nothing() -> None:
    for images in (2, 3, 7, 64, 500, 2_000, 20_000, 24_999):
        once, lines = fitted(Config("d"), images)
        assert lines
        assert fitted(once, images) == (once, [])
        assert fitted(once, images, given=()) == (once, [])
        assert 1 <= once.validation < images
        assert once.labels.images <= images - once.validation


def test_what_somebody_has_chosen_stays() -> None:
    chosen = Config("d", labels=LabelConfig(images=19_000), classifier=ClassifierConfig(batch_size=128))
    config, _ = fitted(chosen, 64)
    assert (config.labels.images, config.classifier.batch_size) == (19_000, 128)
    config, _ = fitted(Config("d"), 10_000, given={"validation"})
    assert config.validation == 5_000
    config, lines = fitted(chosen, 64, given=())
    assert config.labels.images == 52
    assert len(lines) == 5


def test_all_images_may_be_labelled_however_few() -> None:
    everything = dataclasses.replace(Config("d"), labels=LabelConfig(images=0))
    config, _ = fitted(everything, 640)
    assert config.labels.images == 0
    assert config.estimator.batch_size == 32  # of the 512 that are left
