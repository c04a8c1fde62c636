"""Figures as text never say more than was proved."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.report import Curve, html_report
from dualsmooth.runtime.rounding import confidence, shown


@given(st.integers(0, 10**8), st.integers(0, 6))
def test_shown_radii_are_rounded_down(steps: int, digits: int) -> None:
    text = shown(steps / 1e6, digits)
    assert Decimal(text) <= Decimal(steps) / 10**6 < Decimal(text) + Decimal(1).scaleb(-digits)
    assert shown(float("inf"), digits) == "inf"


@given(st.floats(1e-100, 0.1))
def test_confidence_is_never_rounded_up(alpha: float) -> None:
    first, _, less = confidence(alpha).partition(" - ")
    assert Fraction(first) - Fraction(less or "0") <= 1 - Fraction(repr(alpha))


@pytest.mark.parametrize(
    ("alpha", "text"), [(0.1, "0.9"), (1e-3, "0.999"), (1e-6, "0.999999"), (1e-7, "1 - 1e-07"), (1e-100, "1 - 1e-100")]
)
def test_confidence(alpha: float, text: str) -> None:
    assert confidence(alpha) == text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ds.Certificate]:
    """One whose radius would be rounded up at four digits."""
    path = toys.write_bundle(
        tmp_path_factory.mktemp("figures") / "b",
        sigmas=(0.25, 0.5),
        sigma_e=0.5,
        estimator_cuts=[0.5],
        classifier_cuts=[0.3, 0.4],
    )
    smoother = ds.load(path, threads=1)
    options = {"budget": ds.Fixed(500), "rule": "single:0.5", "alpha": 1e-7}
    for seed in range(100):
        made = smoother.certify(toys.image(0.9, 0.2), seed=seed, **options)
        if float(f"{made.radius:.4f}") > made.radius:
            return path, made
    raise AssertionError("no radius that rounds up")


def test_commands_round_radii_down(certificate, tmp_path, capsys) -> None:
    path, made = certificate
    toy = tmp_path / "x.npy"
    np.save(toy, toys.image(0.9, 0.2))
    sampling = ["--budget", "fixed:500", "--rule", "single:0.5", "--alpha", "1e-7", "--seed", str(made.seed.entropy)]
    assert main(["certify", str(path), str(toy), *sampling]) == 0
    out = capsys.readouterr().out
    assert f"certified radius {shown(made.radius, 4)} (" in out
    assert f"class radius {shown(made.class_radius, 4)}," in out
    assert "confidence 1 - 1e-07" in out
    (tmp_path / "c.json").write_text(made.to_json())
    assert main(["verify", str(tmp_path / "c.json")]) == 0
    assert f"radius {made.radius:.6f};" in capsys.readouterr().out


def test_report_keeps_all_digits(certificate) -> None:
    """1.2499996 is not certified at 1.25, and six digits of it are."""
    _, made = certificate
    result = Result(0, made.label, "toy", 0.0, made)
    run = Curve.of([result], name="a", source="b")
    run.radii[0] = 1.2499996
    assert '"good":[1.2499996]' in html_report([run], title="t")
