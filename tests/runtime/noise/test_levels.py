"""Noise levels as people write them."""

from __future__ import annotations

import pytest

from dualsmooth.cli import main
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.levels import require_levels, require_unit_scale


@pytest.mark.parametrize(
    ("sigmas", "fix"),
    [
        ((64,), "expected 0.251$"),
        ((12, 25, 50), "expected 0.04706,0.09804,0.1961$"),
        ((1.0, 0.5, 0.25), "each once: 0.25,0.5,1$"),
        ((0.25, 0.25, 0.5), "each once: 0.25,0.5$"),
        ((0.5, 0.5), "each once: 0.5$"),
        ((0, 0.25), "positive, ascending"),
        ((-0.25, 0.25), "positive, ascending"),
        ((float("nan"),), "positive, ascending"),
        ((0.25, float("inf")), "positive, ascending"),
        ((), "is empty; expected positive, ascending"),
    ],
)
def test_levels_that_cannot_be_meant(sigmas: tuple[float, ...], fix: str) -> None:
    with pytest.raises(InputError, match=fix):
        require_levels(sigmas)


def test_levels_and_deviations_that_can() -> None:
    require_levels((0.01, 0.25, 1.0, 2.0, 4.0))
    require_unit_scale((0.2023, 0.1994, 0.201, 1.0), "std")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sigmas", "64"], "--sigmas is 64; inputs are in [0, 1], not from 0 to 255: expected 0.251"),
        (["--sigmas", "0.5,0.25"], "each once: 0.25,0.5"),
        (["--sigmas", "0.5", "--sigma-e", "64"], "--sigma-e is 64;"),
        (["--sigmas", "0.5", "--classifier-mean", "127.5", "--classifier-std", "0.25"], "--classifier-mean 127.5 and "),
        (["--sigmas", "0.5", "--estimator-mean", "0.5", "--estimator-std", "63,62,66"], "-std 0.2471,0.2431,0.2588"),
    ],
)
def test_export_says_so(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--estimator", "e.onnx", "--classifier", "c.onnx", "--classes", "10", "--out", "o"]
    assert main(["export", *files, *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sigmas", "12,25"], "sigmas is 12,25; inputs are in [0, 1]"),
        (["--sigmas", "0.5,0.25"], "0.25,0.5"),
        (["--sigma-e", "64"], "sigma_e is 64;"),
    ],
)
def test_train_says_so(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset", "fashion-mnist", "--out", "o", *options]) == 2
    assert says in capsys.readouterr().err
