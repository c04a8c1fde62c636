"""What `--quick` changes, and that the documents say exactly that."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

from dualsmooth.training import config_from
from dualsmooth.training.config import read_toml
from dualsmooth.training.config.quick import QUICK, quickened

ROOT = Path(__file__).parents[3]


def test_every_change_is_made_and_said() -> None:
    values, lines = quickened({"dataset": "d", "rounds": 2, "labels": {"folds": 3}}, ())
    config = config_from(values, "test")
    for change in QUICK:
        assert attrgetter(change.key)(config) == change.value
        assert [line for line in lines if line.startswith(f"quick: {change.key} is {change.value}, not ")]
    assert len(lines) == len(QUICK)


def test_less_than_quick_stays_and_flags_win() -> None:
    values = {"dataset": "d", "classifier": {"epochs": 3, "width": 0.25}, "estimator": {"width": 0.25, "epochs": 9}}
    config = config_from(quickened(values, {"estimator.epochs"})[0], "test")
    assert (config.classifier.epochs, config.classifier.width, config.estimator.epochs) == (3, 0.25, 9)


def test_all_labels_are_more_than_a_thousand_and_libraries_networks_have_no_width() -> None:
    net = {"model": "torchvision:resnet18"}
    values = {"dataset": "d", "labels": {"images": 0}, "classifier": net, "estimator": net}
    config = config_from(quickened(values, ())[0], "test")
    assert config.labels.images == 1_000
    assert (config.classifier.width, config.estimator.width) == (1.0, 1.0)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_committed_recipes_can_be_quick(path: Path) -> None:
    config_from(quickened(read_toml(path), ())[0], path.name)


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \|$", page.split("## A first run")[1].split("\n## ")[0], re.M)
    shown = [(c.key, f'`"{c.value}"`' if isinstance(c.value, str) else f"{c.value:,}", c.price) for c in QUICK]
    assert rows == shown
