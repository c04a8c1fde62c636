"""Settings: the public calls say what they take, and what they leave out is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.smoothing.settings import BUDGET, PREDICTION_PASSES, Settings

COMMON = {"alpha": 1e-3, "rule": "interval", "route": None, "seed": None, "noise": None, "groups": False, "at_most": 1}
BUDGETED = COMMON | {"budget": None, "mode": None, "r": None}
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "certify": (ds.Smoother.certify, BUDGETED),
    "certify_many": (
        ds.Smoother.certify_many,
        BUDGETED | {"indices": None, "all_levels": False, "in_flight": 64},
    ),
    "predict": (ds.Smoother.predict, COMMON | {"n": 1_000}),
    "remote certify": (ds.RemoteSmoother.certify, BUDGETED),
    "remote certify_stream": (ds.RemoteSmoother.certify_stream, BUDGETED),
    "remote certify_many": (
        ds.RemoteSmoother.certify_many,
        BUDGETED | {"indices": None, "all_levels": False, "in_flight": 64},
    ),
    "remote predict": (ds.RemoteSmoother.predict, COMMON | {"n": 1_000}),
    "evaluate": (evaluate, BUDGETED | {"all_levels": False, "progress": None, "opened": None}),
}


@pytest.mark.parametrize("name", CALLS)
def test_public_calls_keep_their_arguments_and_defaults(name: str) -> None:
    call, expected = CALLS[name]
    found = {p.name: p.default for p in signature(call).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if name == "evaluate":
        found.pop("indices")  # which has no default there
    assert found == expected


def test_what_is_left_out_is_said_once() -> None:
    settings = Settings()
    assert {f.name: getattr(settings, f.name) for f in fields(Settings)} == COMMON | {
        "budget": ds.Fixed(10_000),
        "all_levels": False,
    }
    assert Settings.of() == Settings.of(budget=None) == settings
    assert Settings.of(budget=ds.Fixed(7)).budget == ds.Fixed(7)
    assert (ds.Fixed(10_000), 1_000) == (BUDGET, PREDICTION_PASSES)


def test_a_call_with_settings_is_the_call_with_arguments(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.3])
    image, given = toys.image(0.9, 0.9), {"alpha": 0.01, "rule": "paper", "route": "median", "seed": 3}
    with ds.load(tmp_path / "b", threads=1) as smoother:
        settings = Settings(budget=ds.Fixed(60), **given)
        (made,) = smoother.certify_with([image], settings)
        assert made == smoother.certify(image, budget=ds.Fixed(60), **given)
        assert made.terms == settings.terms(smoother.bundle)
        assert smoother.predict_with(image, settings) == smoother.predict(image, n=60, **given)
