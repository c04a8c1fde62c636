"""The coverage statistics: a small run of them, and that they would notice certificates that claim too much."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import coverage_statistics
import pytest
from coverage_statistics import BOUNDS, count_errors, page, remembered, total
from coverage_toys import DISTANCE, ENGINES, Mode, modes, scenes
from scipy import stats

import dualsmooth as ds
from dualsmooth.runtime.noise import streams as noise_module
from dualsmooth.runtime.noise.streams import Noise
from dualsmooth.runtime.statistics.bounds import lower_bound

ALPHA = 0.05


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_module, "_BLOCK", 1 << 12)
    for module, name in BOUNDS:  # the script wraps them; put them back afterwards
        monkeypatch.setattr(module, name, remembered(getattr(module, name)))


def test_all_bounds_are_remembered() -> None:
    assert {name for _, name in BOUNDS} == {"lower_bound", "upper_bound", "kt_lower"}


def test_every_mode_is_there() -> None:
    ways = {(m.rule, m.route, m.budget) for m in modes()}
    assert len(ways) == 21
    assert {m.engine for m in modes()} == set(ENGINES)
    assert {(m.noise.mode, m.noise.shared) for m in modes()} == {(m, s) for m in ("float", "lattice") for s in (0, 1)}
    assert len(modes()) == len(ways) * len(ENGINES) * len({m.noise for m in modes()})


@pytest.mark.parametrize("rule", ["single", "paper", "interval"])
def test_scenes_are_what_they_say(rule: str) -> None:
    """The true radius of label 1 is the distance, or next to nothing where the label's vote is even."""
    mode = Mode(rule, "median", "fixed", ENGINES[0], Noise())
    for scene in scenes(mode, ALPHA):
        expected = DISTANCE if "even label" not in scene.name else DISTANCE / 101
        assert scene.truth(1, mode) == pytest.approx(expected), scene.name
        assert scene.truth(0, mode) == 0


def rate(mode: Mode, count: int, scene: str) -> tuple[Counter[str], float]:
    found = total(count_errors(mode, ALPHA, count, seed=3), scene)
    return found, float(stats.binomtest(found["errors"], found["count"], ALPHA, alternative="greater").pvalue)


NOISES = [Noise(mode, *of) for mode in ("lattice", "table") for of in ((), ("Philox", True))]


@pytest.mark.parametrize("noise", [Noise(), *NOISES], ids=str)
def test_one_sigma_uses_its_alpha_and_no_more(noise: Noise) -> None:
    """About 5 % of errors at the worst case, in both engines; far too many if radii were 10 % larger."""
    for engine in ENGINES:
        found, p = rate(Mode("single", "mode", "fixed", engine, noise), 1000, "label")
        assert p > 1e-6
        assert found["errors"] > ALPHA / 4 * found["count"]
        assert stats.binomtest(found["control"], found["count"], ALPHA, alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize(("rule", "route"), [("interval", "median"), ("paper", "mode")])
@pytest.mark.parametrize("scene", ["label", "route"])
def test_either_stage_may_use_all_of_alpha(rule: str, route: str, scene: str) -> None:
    found, _ = rate(Mode(rule, route, "fixed", ENGINES[0], Noise()), 2500, scene)
    assert stats.binomtest(found["errors"], found["count"], ALPHA, alternative="greater").pvalue > 1e-6
    assert found["errors"] > ALPHA / 4 * found["count"]


@pytest.mark.slow
def test_no_mode_errs_more_often_than_alpha() -> None:
    """All modes, a few certificates each: the full count is in docs/coverage.md."""
    for mode in modes():
        assert rate(mode, 10, "")[1] > 1e-6, mode


def test_remembered_bounds_are_the_bounds() -> None:
    bound = remembered(lower_bound)
    for k in ([3, 7], [7, 3], [3, 7]):
        assert bound(k, 10, [0.01, 0.02]).tolist() == lower_bound(k, 10, [0.01, 0.02]).tolist()
    bound([3, 7], 10, [0.01, 0.02])[0] = 9
    assert bound([3, 7], 10, [0.01, 0.02]).max() < 1
    assert bound(7, 10, 0.02).shape == ()


def test_the_page_is_written_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out = tmp_path / "c.jsonl", tmp_path / "coverage.md"
    few = [m for m in modes() if m.noise == Noise() and m.budget == "fixed"]
    monkeypatch.setattr(coverage_statistics, "modes", lambda: few)
    options = ["coverage", "--count", "10", "--results", str(results), "--out", str(out), "--force"]
    monkeypatch.setattr(sys, "argv", options)
    coverage_statistics.main()
    lines = results.read_text().splitlines()
    assert [json.loads(line)["mode"] for line in lines] == [str(m) for m in few]
    results.write_text("\n".join(lines[:-2]) + "\n")
    coverage_statistics.main()
    assert sorted(results.read_text().splitlines()) == sorted(lines)
    assert "| closed form |" in out.read_text()
    monkeypatch.setattr(sys, "argv", [*options, "--alpha", "0.01"])
    with pytest.raises(ds.InputError, match="other settings"):
        coverage_statistics.main()


def test_the_page_names_modes_above_alpha() -> None:
    bad = {}
    for mode in modes():
        names = [scene.name for scene in scenes(mode, ALPHA)]
        bad[str(mode)] = Counter({f"{n}: {what}": k for n in names for what, k in (("count", 100), ("errors", 30))})
    assert f"Modes that are: {len(modes())}." in page(bad, ALPHA)
