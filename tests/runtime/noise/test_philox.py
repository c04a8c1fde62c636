"""Addressable normals: the published test vectors, cuts, moments, and the CUDA source compiled for the CPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dualsmooth.runtime.noise import philox
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.noise.philox import Philox4x32, block
from dualsmooth.runtime.noise.selftest import check_generator
from dualsmooth.runtime.noise.streams import Noise, Seed, parse_noise
from dualsmooth.runtime.statistics.votes import Stream

STREAM = Stream("classifier", 1, "estimation")


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(key: tuple[int, int], counter: tuple[int, int, int, int], expected: str) -> None:
    """Random123's kat_vectors for philox4x32-10."""
    number = np.array([counter[0] | counter[1] << 32], np.uint64)
    found = block([*key, *counter[2:]], number)
    assert " ".join(f"{int(word[0]):08x}" for word in found) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_do_not_depend_on_how_the_stream_is_cut(dtype: type) -> None:
    whole = np.empty(1000, dtype)
    Philox4x32(np.random.SeedSequence(5)).standard_normal(dtype=dtype, out=whole)
    pieces, at = np.empty_like(whole), 0
    stream = Philox4x32(np.random.SeedSequence(5))
    for size in (1, 2, 3, 5, 7, 1, 400, 0, 81, 500):
        stream.standard_normal(dtype=dtype, out=pieces[at : at + size])
        at += size
    assert np.array_equal(whole, pieces)


def test_words_are_the_blocks_themselves() -> None:
    """Two of each block, the lower half first; a stream may begin anywhere."""
    key = [int(word) for word in np.random.SeedSequence(5).generate_state(4)]
    c = [int(word[0]) for word in block(key, np.array([3], np.uint64))]
    words = Philox4x32(np.random.SeedSequence(5)).words(9)
    assert words[6:8].tolist() == [c[0] | c[1] << 32, c[2] | c[3] << 32]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normals_are_normal(dtype: type) -> None:
    draws = np.empty(1 << 20, dtype)
    Philox4x32(np.random.SeedSequence(1)).standard_normal(dtype=dtype, out=draws)
    draws = draws.astype(np.float64)
    assert np.isfinite(draws).all()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((draws**power).mean() - moment) < 5 * np.sqrt(spread / draws.size)
    for lag in (1, 2, 3, 4, 64):
        assert abs((draws[lag:] * draws[:-lag]).mean()) < 5 / np.sqrt(draws.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_are_those_of_the_normal_distribution(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first word of a radius is 0 (once in 2^32), exp(-r^2 / 2) is uniform below 2^-32: 40 bits, or 53."""
    rng = np.random.default_rng(0)
    words = [rng.integers(0, 1 << 32, 1 << 16).astype(np.uint64) for _ in range(4)]
    words[0][:] = 0
    monkeypatch.setattr(philox, "block", lambda *_: words)
    made = philox._normals([0] * 4, 0, (1 << 16) * (4 if dtype == np.float32 else 2), np.dtype(dtype))
    x, y = made.reshape(1 << 16, -1)[:, :2].astype(np.float64).T
    share = np.exp(-(x**2 + y**2) / 2) * 2.0**32
    assert share.min() < 2**-6
    assert stats.kstest(share, "uniform").statistic < 2**-7
    assert stats.kstest(np.arctan2(y, x), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_it_passes_the_start_up_test_and_is_recorded() -> None:
    noise = parse_noise("lattice:philox4x32")
    assert noise == Noise("lattice", "Philox4x32")
    seed = Seed.make(3, Noise("float", "Philox4x32"))
    check_generator(seed)
    assert seed.to_dict()["generator"] == "Philox4x32"
    assert Seed.from_dict(seed.to_dict()) == seed


def test_images_and_streams_have_noise_of_their_own() -> None:
    base = Seed.make(3, Noise("float", "Philox4x32"))
    draws = []
    for seed, stream in ((base, STREAM), (base.at(1), STREAM), (base, STREAM._replace(level=0))):
        out = np.empty((100, 1, 1, 2), np.float32)
        add_noise(seed.generator(stream), np.zeros((1, 1, 2), np.float32), 1.0, out)
        draws.append(out)
    assert not np.isin(draws[0], draws[1]).any()
    assert not np.isin(draws[0], draws[2]).any()


@pytest.mark.parametrize("tails", [False, True])
def test_the_cuda_source_draws_the_same(tails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's arithmetic, compiled as C: word for word the same blocks, so values agree but for rounding. And so
    do `tails`, where the first word of each radius is 0."""
    compiler = next(
        (found for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if (found := shutil.which(name))), None
    )
    if compiler is None:
        pytest.skip("no C compiler")
    loops = "".join(
        f"void fill_{kind}(unsigned long long first, unsigned int* k, {kind}* z, int n) {{ for (int i = 0; i < n; ++i) "
        f"z[i] = normal_{kind}(first + i, k[0], k[1], k[2], k[3]); }}\n"
        for kind in ("float", "double")
    )
    loops += (
        "void fill_words(unsigned long long first, unsigned int* k, unsigned long long* z, int n) "
        "{ for (int i = 0; i < n; ++i) z[i] = word(first + i, k[0], k[1], k[2], k[3]); }"
    )
    source = philox.KERNEL
    if tails:
        source = source.replace("philox_block(c, k0, k1);", "philox_block(c, k0, k1); c[0] = c[2] = 0;")
        monkeypatch.setattr(philox, "block", lambda *a: [w * np.uint64(i % 2) for i, w in enumerate(block(*a))])
    (tmp_path / "k.c").write_text("#include <math.h>\n#define __device__ static\n" + source + loops)
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(tmp_path / "k.so"), str(tmp_path / "k.c"), "-lm"], check=True
    )
    library = ctypes.CDLL(str(tmp_path / "k.so"))
    words = np.random.SeedSequence(7).generate_state(4)
    for kind, dtype, off in (("float", np.float32, 3e-6), ("double", np.float64, 1e-13)):
        for start in (0, 5):
            stream = Philox4x32(np.random.SeedSequence(7))
            stream.standard_normal(dtype=dtype, out=np.empty(start, dtype))
            ours, theirs = np.empty(10_001, dtype), np.empty(10_001, dtype)
            stream.standard_normal(dtype=dtype, out=ours)
            getattr(library, f"fill_{kind}")(
                ctypes.c_ulonglong(start), words.ctypes.data_as(ctypes.c_void_p),
                theirs.ctypes.data_as(ctypes.c_void_p), ctypes.c_int(theirs.size),
            )  # fmt: skip
            assert np.abs(ours - theirs).max() < off
    ours, numbers = Philox4x32(np.random.SeedSequence(7)).words(10_001), np.empty(10_001, np.uint64)
    library.fill_words(ctypes.c_ulonglong(0), *(a.ctypes.data_as(ctypes.c_void_p) for a in (words, numbers)), 10_001)
    assert np.array_equal(ours, numbers)
