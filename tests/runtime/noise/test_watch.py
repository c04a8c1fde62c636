"""The watch over streams while certificates are made."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import replace
from typing import Any

import backdoors
import numpy as np
import pytest

from dualsmooth.runtime.errors import EngineError
from dualsmooth.runtime.noise import watch
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.philox import Philox4x32
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.noise.watch import Watched, sound_stream
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 1, "estimation")


class Device(np.ndarray):
    device = contextlib.nullcontext()


class FakeCupy:
    """NumPy's functions under another name."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *args: np.empty(*args).view(Device)) if name == "empty" else getattr(np, name)


@pytest.fixture(autouse=True)
def _nothing_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_begun", {})


def draw(normals: Any, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    out = np.empty(shape, dtype)
    normals.standard_normal(dtype=dtype, out=out)
    return out


@pytest.mark.parametrize("noise", [Noise(), Noise("lattice", "Philox"), Noise(shared=True)], ids=str)
def test_the_same_values_as_without_a_watch(noise: Noise) -> None:
    seed, other = Seed(4, 2, noise=noise), Seed(4, 2, noise=noise)
    watched = sound_stream(seed, STREAM)
    for shape in ((1,), (2,), (700, 3), (40_000,)):
        assert np.array_equal(draw(watched, *shape), draw(other.generator(STREAM), *shape)) == (shape == (1,))
    whole = draw(seed.generator(STREAM), 42_103)
    again = sound_stream(other, STREAM)
    assert np.array_equal(np.concatenate([draw(again, n) for n in (1, 2, 2100, 40_000)]), whole)


def test_shared_noise_may_be_seen_by_many_images() -> None:
    for index in range(3):
        draw(sound_stream(Seed(77, index, noise=Noise(shared=True)), STREAM), 100)


@pytest.mark.parametrize("after", [4, 1000, 40_001])
@pytest.mark.parametrize("size", [5, 999, 32_768])
def test_a_stream_that_starts_over_is_noticed(after: int, size: int) -> None:
    """Whatever its period and the sizes of the calls: at the latest after a few periods."""
    late = Watched(backdoors.Late(3, after), identity=after * size)
    calls = (draw(late, size) for _ in range(20 * after // size + 2))
    with pytest.raises(EngineError, match="starts over"):
        deque(calls, maxlen=0)


def test_streams_that_coincide_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images far apart in a run have one stream: more seldom than the self-test looks."""
    real = GENERATORS["SFC64"]
    monkeypatch.setattr(watch, "require_sound", lambda noise, xp: None)
    few = replace(real, normals=lambda seed: real.normals(np.random.SeedSequence(seed.spawn_key[0] % 1000)))
    monkeypatch.setitem(GENERATORS, "SFC64", few)
    for index in range(1000):
        draw(sound_stream(Seed(5, index), STREAM), 4)
    draw(sound_stream(Seed(5, 3), STREAM), 4)  # the same stream again is no fault
    with pytest.raises(EngineError, match="two streams are equal"):
        draw(sound_stream(Seed(5, 1003), STREAM), 4)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REMEMBERED", 50)
    for index in range(200):
        draw(sound_stream(Seed(6, index), STREAM), 4)
    assert len(watch._begun) == 50


def test_watched_streams_for_a_device_are_drawn_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch must not hide that a generator can draw on the device."""
    monkeypatch.setattr(watch, "require_sound", lambda noise, xp: None)
    there: list[Any] = []
    monkeypatch.setattr(Philox4x32, "standard_normal", lambda self, *, dtype, out: there.append(out))
    device = FakeCupy().empty((3, 1, 1, 2), np.float32)
    for generator, drawn in (("Philox4x32", [device]), ("SFC64", [])):
        there.clear()
        watched = sound_stream(Seed(8, noise=Noise(generator=generator)), STREAM)
        add_noise(watched, np.zeros((1, 1, 2), np.float32), 1.0, device, xp=FakeCupy())
        assert [part.base is device or part is device for part in there] == [True] * len(drawn)


def test_arrays_of_other_libraries_pass_unseen() -> None:
    class Other:
        def standard_normal(self, *, dtype: Any, out: Any) -> None:
            out.append(1.0)

    given: list[float] = []
    Watched(Other(), 1).standard_normal(out=given)
    assert given == [1.0]
