"""`--quick`: a first run in minutes, to see that all of it works. One table says what it changes. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from dualsmooth.training.config.config import Config


@dataclass(frozen=True)
class Change:
    """`value` is the most that `key` may be, or what it is where it is no number; `price` is what that costs."""

    key: str
    value: int | float | str
    price: str


QUICK = (
    Change("rounds", 1, "classifiers are not fine-tuned on the router's routes"),
    Change("classifier.width", 0.5, "networks of a quarter of the work: some points of accuracy at every level"),
    Change("classifier.epochs", 8, "trained less: more so where the objective begins gently"),
    Change("labels.images", 1_000, "the estimator learns from fewer images"),
    Change("labels.radii", "margins", "radii are estimates, not bounds"),
    Change("labels.votes", 16, "noisier labels"),
    Change("labels.folds", 0, "images are labelled by networks that have seen them"),
    Change("estimator.width", 0.5, "the router is as narrow as the classifiers"),
    Change("estimator.epochs", 4, "trained less"),
    Change("metrics.images", 100, "shares of 100 images: 5 points of error either way"),
    Change("metrics.votes", 100, "certified accuracies look smaller than they are, large radii above all"),
)
"""Everything that `--quick` changes. Own flags and `--set` win over it, a configuration file does not."""


def quickened(values: dict[str, Any], flagged: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Nested `values` of a configuration with the table's changes, but for the keys in `flagged`, and a line on each.

    A library's network has no width to change.
    """
    usual, lines = Config("any"), []
    for change in QUICK:
        section, _, name = change.key.rpartition(".")
        given = values.get(section, {}) if section else values
        model = str(given.get("model", "")) if isinstance(given, Mapping) else ""
        if change.key in flagged or not isinstance(given, Mapping) or (name == "width" and ":" in model):
            continue
        old = given.get(name, attrgetter(change.key)(usual))
        new = _changed(old, change.value, everything=change.key == "labels.images")
        if new != old:
            values = {**values, section: {**given, name: new}} if section else {**values, name: new}
            lines.append(f"quick: {change.key} is {new}, not {old}: {change.price}")
    return values, lines


def _changed(old: Any, value: Any, everything: bool) -> Any:
    """The smaller of two numbers (0 may stand for `everything`), else the table's value."""
    if isinstance(value, str) or isinstance(old, bool) or not isinstance(old, int | float):
        return value
    return value if everything and old == 0 else min(old, value)
