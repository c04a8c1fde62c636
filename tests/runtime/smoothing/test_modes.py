"""Modes are budgets by name."""

from __future__ import annotations

from typing import Any

import pytest

import dualsmooth as ds
from dualsmooth.runtime.smoothing.modes import MODES
from dualsmooth.runtime.smoothing.settings import Settings


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_a_budget(name: str) -> None:
    r = 0.5 if MODES[name].needs_radius else None
    made = Settings.of(mode=name, r=r)
    assert made == Settings.of(budget=MODES[name].budget(0.5))
    assert ds.parse_budget(str(made.budget)) == made.budget


def test_the_named_ones() -> None:
    assert Settings.of(mode="standard").budget == ds.Fixed(10_000)
    assert Settings.of(mode="decide", r=0.25).budget == ds.AtRadius(0.25)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "fast"}, "expected decide .with r., quick, standard or thorough"),
        ({"mode": 3}, "mode '3' is unknown"),
        ({"mode": "quick", "budget": ds.Fixed(100)}, "pass one of them"),
        ({"mode": "decide"}, "without r"),
        ({"mode": "quick", "r": 0.5}, "no mode decides"),
        ({"r": 0.5}, "no mode decides"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ds.InputError, match=said):
        Settings.of(**given)
