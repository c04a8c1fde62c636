"""Votes: the tally and its text form."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.statistics.votes import Stream, Tally

STREAM = Stream("classifier", 1, "estimation")


def read(data: object) -> Tally:
    return Tally.from_dict(data, classes=4, levels=3)


def test_counts_are_cumulative() -> None:
    tally = Tally(4, 3)
    assert tally.counts(STREAM).tolist() == [0, 0, 0, 0]
    assert tally.passes(STREAM) == 0
    tally.record(STREAM, np.array([1, 0, 0, 4]))
    tally.record(STREAM, np.array([1, 0, 2, 7]))
    tally.record(Stream("estimator", 0, "selection"), np.array([1, 1, 1]))
    assert tally.counts(STREAM).tolist() == [1, 0, 2, 7]
    assert tally.passes(STREAM) == 10
    assert tally.total() == 13
    assert tally.width(Stream("estimator", 0, "selection")) == 3


def test_round_trip() -> None:
    tally = Tally(4, 3)
    tally.record(STREAM, np.array([1, 0, 0, 4]))
    tally.record(STREAM, np.array([1, 0, 2, 7]))
    data = json.loads(json.dumps(tally.to_dict()))
    assert data == {"classifier/1/estimation": [{"0": 1, "3": 4}, {"0": 1, "2": 2, "3": 7}]}
    assert read(data).to_dict() == data


@pytest.mark.parametrize(
    "name",
    [
        *(
            "classifier/3/estimation",
            "classifier/-1/estimation",
            "classifier/01/estimation",
            "classifier/1.0/estimation",
        ),
        *("estimator/1/estimation", "classifier/1", "classifier/1/estimation/2", "judge/0/estimation", "", "//"),
        *("classifier/1/prediction", "classifier/ 1/estimation", "classifier/१/estimation"),
        "classifier/" + "9" * 5000 + "/estimation",
    ],
)
def test_unknown_streams_are_refused(name: str) -> None:
    with pytest.raises(CertificateError) as caught:
        read({name: [{"0": 1}]})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "looks",
    [
        *([], {}, None, "x", [{}], [None], [[1, 2]], [{"4": 1}], [{"-1": 1}], [{"01": 1}], [{"x": 1}], [{"0": 0}]),
        *([{"0": -1}], [{"0": 1.0}], [{"0": True}], [{"0": "1"}], [{"0": None}], [{"0": 1 << 60}], [{"1" * 5000: 1}]),
        *(
            [{"0": 2}, {"0": 2}],
            [{"0": 2}, {"0": 1}],
            [{"0": 2, "1": 1}, {"0": 9}],
            [{"0": n + 1} for n in range(1000)],
        ),
    ],
)
def test_looks_that_no_sampling_gives_are_refused(looks: object) -> None:
    with pytest.raises(CertificateError):
        read({"classifier/1/estimation": looks})


def test_sums_of_counts_never_overflow() -> None:
    """2^16 classes of 2^48 votes each add up to 0 in 64 bits: with 10,000 votes more, a budget of 10,000 looks kept."""
    look = {"0": 9_999, "70000": 1} | {str(c): 1 << 48 for c in range(1, (1 << 16) + 1)}
    with pytest.raises(CertificateError, match="has count 281474976710656"):
        Tally.from_dict({"classifier/0/estimation": [look]}, classes=100_000, levels=1)
    most = Tally.from_dict({"classifier/0/selection": [{str(c): 1 << 40 for c in range(1000)}]}, classes=1000, levels=1)
    assert most.total() == 1000 << 40


def test_a_short_text_cannot_ask_for_much_memory() -> None:
    looks = [{"0": n + 1} for n in range(200)]
    data = {f"classifier/{s}/{p}": looks for s in range(64) for p in ("selection", "estimation")}
    with pytest.raises(CertificateError, match="expected fewer looks"):
        Tally.from_dict(data, classes=100_000, levels=64)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("0"), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["classifier/1/estimation", "estimator/0/selection"]) | st.text(max_size=12)


@settings(max_examples=200, deadline=None)
@given(JSON | st.dictionaries(NAMES, JSON, max_size=3))
def test_reading_never_fails_in_another_way(data: object) -> None:
    with contextlib.suppress(CertificateError):
        assert read(data).to_dict() == data
