"""Labels follow names, in any order; what does not fit is refused, naming the difference."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from dualsmooth.runtime.datasets.cifar10 import CIFAR10_CLASSES
from dualsmooth.runtime.datasets.class_names import in_order, match_labels, numbered, read_class_names
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.fashion_mnist import FASHION_MNIST_CLASSES
from dualsmooth.runtime.errors import InputError

FRUIT = ("zebra", "apple", "mango", "kiwi")


def matched(labels: list[int], theirs: tuple[str, ...], ours: tuple[str, ...], indexed: bool = False) -> list[int]:
    found = match_labels(np.array(labels, np.int64), theirs, ours, data="set", owner="the bundle", indexed=indexed)
    return found.tolist()


@pytest.mark.parametrize(
    ("theirs", "ours", "labels", "expected"),
    [
        (("apple", "kiwi", "mango", "zebra"), FRUIT, [0, 1, 2, 3], [1, 3, 2, 0]),
        (("kiwi", "zebra"), FRUIT, [0, 1, 1], [3, 0, 0]),
        (FRUIT, FRUIT, [3, 0], [3, 0]),
        ((), FRUIT, [3, 0], [3, 0]),
        (("Apple", "KIWI"), FRUIT, [0, 1], [1, 3]),
        (("ice cream", "hot_dog"), ("hot dog", "Ice-Cream"), [0, 1], [1, 0]),
        (("T-shirt_top", "Ankle boot"), FASHION_MNIST_CLASSES, [0, 1], [0, 9]),
        (("t_shirt_top", "ankle_boot"), FASHION_MNIST_CLASSES, [0, 1], [0, 9]),
        ((unicodedata.normalize("NFD", "für"), "x"), ("x", unicodedata.normalize("NFC", "für")), [0, 1], [1, 0]),
        (("0", "1", "10", "11", "2"), numbered(12), [0, 1, 2, 3, 4], [0, 1, 10, 11, 2]),
        (("00", "01", "10"), numbered(12), [0, 1, 2], [0, 1, 10]),
        (("3.0", "1.0"), ("1", "3"), [0, 1], [1, 0]),
        (("apple", "unused"), ("banana", "apple"), [0, 0], [1, 1]),
        (("C++", "C"), ("C", "C#", "C++"), [0, 1], [2, 0]),
        (("cat", "Cat"), ("Cat", "cat"), [0, 1], [1, 0]),
        (("crane", "crane", "owl"), ("crane", "crane", "owl"), [0, 1, 2], [0, 1, 2]),
        (("a", "a"), ("b", "a"), [0, 0], [1, 1]),
        ((" dog ", "cat"), ("cat", "dog"), [0, 1], [1, 0]),
    ],
)
def test_labels_follow_names(theirs, ours, labels, expected) -> None:
    assert matched(labels, theirs, ours) == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "labels", "message"),
    [
        (("apple", "pear"), FRUIT, [0, 1], r"that the bundle has not: 'pear'; expected some of 'zebra'.*rename"),
        (("n01440764", "n02102040"), ("tench", "springer"), [0, 1], r"'n01440764', 'n02102040'.*--classes.*WordNet"),
        (("tench", "springer"), numbered(2), [0, 1], r"--classes 2, if the data set's sorted order"),
        (("1", "2", "3"), numbered(3), [0, 1, 2], "'3'"),
        (("cat", "CAT"), ("cat", "dog"), [0, 1], "not the only one"),
        (("Cat",), ("cat", "CAT"), [0], "not the only one"),
        (("crane",), ("crane", "crane"), [0], "not the only one"),
        (("a", "a"), ("b", "a"), [0, 1], "not the only one"),
        (("7", "07"), ("7", "8"), [0, 1], "not the only one"),
        (("c",), ("C++", "Java"), [0], "'c'"),
        ((), FRUIT, [1, 4], r"labels from 1 to 4 for 4 classes of the bundle; .*0 to 3 \(they seem to count from 1"),
        ((), FRUIT, [0, 4], "labels from 0 to 4 for 4 classes"),
        ((), FRUIT, [-1, 2], "labels from -1 to 2"),
        (("a", "b"), ("a", "b", "c"), [0, 2], "labels from 0 to 2 for 2 names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(theirs, ours, labels, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        matched(labels, theirs, ours)
    assert "\n" not in str(caught.value)


def test_published_numbers_need_no_names() -> None:
    """A bundle whose classes were only counted, and a data set that everybody numbers alike."""
    assert matched([3, 9], CIFAR10_CLASSES, numbered(10), indexed=True) == [3, 9]
    with pytest.raises(InputError, match="has not"):
        matched([3, 9], CIFAR10_CLASSES, numbered(9), indexed=True)


def test_no_labels_match_anything() -> None:
    assert matched([], ("a",), FRUIT) == []


def test_order_by_number_where_all_are_numbers() -> None:
    assert in_order({"10", "9", "1"}) == ("1", "9", "10")
    assert in_order({"10", "9", "x"}) == ("10", "9", "x")


def test_names_from_the_command_line(tmp_path: Path) -> None:
    assert read_class_names("3") == ("0", "1", "2")
    assert read_class_names("a, b") == ("a", "b")
    (tmp_path / "c.txt").write_bytes("\ufeffred\r\n\r\n light blue \n".encode())
    assert read_class_names(str(tmp_path / "c.txt")) == ("red", "light blue")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read"):
        read_class_names(str(tmp_path / "c.txt"))


def test_a_data_set_takes_other_names_and_is_fitted() -> None:
    data = Dataset("set", np.zeros((2, 3, 4, 5), np.uint8), np.array([0, 1]), ("n01", "n02"))
    named = data.named(("kiwi", "zebra"))
    assert named.fitted(FRUIT, (3, 4, 5)).labels.tolist() == [3, 0]
    assert named.fitted(FRUIT, (3, 4, 5)).classes == FRUIT
    for names in (("a",), ("a", "b", "c")):
        with pytest.raises(InputError, match=f"gives {len(names)} names; set has 2 classes"):
            data.named(names)
    with pytest.raises(InputError, match="3 channels, 4 pixels high and 5 wide; the bundle takes 1 channel, 4 pixels"):
        named.fitted(FRUIT, (1, 4, 5))
