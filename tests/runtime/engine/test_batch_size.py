"""The automatic batch size: measured once, remembered, measured again where the cache is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.engine import batch_size
from dualsmooth.runtime.engine.batch_size import CANDIDATES, measured


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return toys.two_levels(tmp_path / "b")


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({32: 10, 64: 20, 128: 30, 256: 40, 512: 50, 1024: 60}, 1024),
        ({32: 10, 64: 100, 128: 101, 256: 102, 512: 103, 1024: 104}, 128),
        ({32: 100, 64: 70, 128: 300}, 32),
        ({32: 50, 64: 100, 128: 99, 256: 98, 512: 70}, 64),
    ],
)
def test_the_smallest_of_the_fast_ones_is_taken(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, rates: dict[int, float], best: int
) -> None:
    tried: list[int] = []

    def rate(bundle: ds.Bundle, engine: Any, size: int) -> float:
        tried.append(size)
        return rates[size]

    monkeypatch.setattr(batch_size, "_rate", rate)
    nothing: Any = None
    assert measured(ds.read_bundle(bundle), nothing, lambda size: nothing) == best
    assert tried == [size for size in CANDIDATES if size in rates][: len(tried)]


def test_it_is_measured_once(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    real, measurements = batch_size.measured, []

    def counted(*args: Any) -> int:
        measurements.append(real(*args))
        return measurements[-1]

    monkeypatch.setattr(batch_size, "measured", counted)
    first = ds.load(bundle, threads=1, batch_size="auto")
    assert first.batch_size in CANDIDATES
    assert ds.load(bundle, threads=1, batch_size="auto").batch_size == first.batch_size
    assert len(measurements) == 1
    ds.load(bundle, threads=2, batch_size="auto")
    ds.load(bundle, threads=1, batch_size="auto", provider_options={"arena": False})
    assert len(measurements) == 3
    cache = tmp_path / "cache" / "dualsmooth" / "batch-sizes.json"
    for damage in ("", "[1]", '{"a"', "\x00", '{"a": 3}', "{}", '{"' + "0" * 64 + '": true}'):
        cache.write_text(damage)
        assert ds.load(bundle, threads=1, batch_size="auto").batch_size in CANDIDATES
    assert len(measurements) == 10
    assert ds.load(bundle, threads=1, batch_size="auto").certify(toys.image(0.6, 0.1), seed=1).label == 1
    assert len(measurements) == 10


def test_without_a_cache_it_is_measured_each_time(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    assert ds.load(bundle, threads=1, batch_size="auto").batch_size in CANDIDATES


@pytest.mark.parametrize("size", ["fast", 0, 1 << 20, True, 2.0, None])
def test_other_sizes_are_refused(bundle: Path, size: Any) -> None:
    with pytest.raises(ds.InputError, match=r"batch_size is .*; expected 1 to 65536, or 'auto'"):
        ds.load(bundle, batch_size=size)
