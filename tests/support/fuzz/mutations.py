"""Strategies that damage real inputs: bytes, and JSON by its structure."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]
Samples = Callable[[], Sequence[Any]]
"""Real inputs, asked for when the first one is damaged: many of them are made by fixtures."""
BYTES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"\0", b"\xff", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0" * 8, b"\xff" * 9 + b"\1"]
    ),
    st.sampled_from([b"\n", b"\r", b"\t", b'"', b"{", b"[", b",", b"NaN", b"1e999", b"\xe2\x80\xa8", b"\x1c", b"\x85"]),
)


@st.composite
def damaged(draw: st.DrawFn, samples: Samples, most: int = 5) -> bytes:
    """One of the samples with up to `most` edits: bits flipped, bytes overwritten, inserted, cut, doubled, moved."""
    data = bytearray(_one(draw, samples))
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.integers(0, 6))
        if kind <= 1 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 2:
            piece = draw(BYTES)
            data[at : at + len(piece)] = piece
        elif kind == 3:
            data[at:at] = draw(BYTES)
        elif kind == 4:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 5:
            piece, to = data[at : at + draw(st.integers(1, 200))], draw(st.integers(0, len(data)))
            data[to:to] = piece
        elif kind == 6 and draw(st.booleans()):
            del data[at:]
    return bytes(data)


def _one(draw: st.DrawFn, samples: Samples) -> Any:
    real = samples()
    return real[draw(st.integers(0, len(real) - 1))]


NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([0.5, 1.0, 0.25, 1e-9, 1e300, -1e300, 5e-324, 0.1, -0.0, 1e15, 255, 256, 16384, 1 << 31, 1 << 32]),
    st.sampled_from([1 << 63, (1 << 63) - 1, -(1 << 63), 1 << 64, 10**30, 10**400, -(10**400), 1 << 48]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.floats(),
    st.integers(),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "a\nb", "x" * 3000, "\ud800", "\u2028", "\0", "\x7f", "../x.onnx", "/etc/passwd", "nan"]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=6)


def paths(value: Any, here: Path = ()) -> list[Path]:
    """The places in a JSON value, the root included."""
    found = [here]
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths(item, (*here, key))
    elif isinstance(value, list):
        for key, item in enumerate(value):
            found += paths(item, (*here, key))
    return found


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def changed(draw: st.DrawFn, samples: Samples, most: int = 3) -> Any:
    """One of the JSON samples after 1 to `most` edits of its structure: a place gets another value, a near number, what
    stands in another place; it vanishes, or gets a new neighbour."""
    value = copy.deepcopy(_one(draw, samples))
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, most]))):
        places = paths(value)
        if len(places) == 1:
            break
        path = places[draw(st.integers(1, len(places) - 1))]
        parent, key = at(value, path[:-1]), path[-1]
        old = parent[key]
        kind = draw(st.integers(0, 9))
        if kind <= 2 and isinstance(old, int | float) and not isinstance(old, bool):
            parent[key] = draw(_near(old))
        elif kind <= 4:
            parent[key] = draw(VALUES)
        elif kind == 5:
            parent[key] = copy.deepcopy(at(value, places[draw(st.integers(0, len(places) - 1))]))
        elif kind == 6:
            del parent[key]
        elif kind == 7 and isinstance(parent, dict):
            parent[draw(TEXTS)] = draw(VALUES)
        elif kind == 7:
            parent.insert(draw(st.integers(0, len(parent))), copy.deepcopy(draw(st.sampled_from([old, None]))))
        elif kind == 8 and isinstance(parent, dict):
            other = str(places[draw(st.integers(1, len(places) - 1))][-1])
            parent[draw(TEXTS) if draw(st.booleans()) else other] = parent.pop(key)
        else:
            parent[key] = draw(LEAVES)
    return value


def _near(number: float) -> st.SearchStrategy[Any]:
    """Numbers that are easily taken for `number`."""
    whole = isinstance(number, int)
    steps = [number + 1, number - 1, -number, number * 2, 0] if whole else []
    steps += [] if whole else [number + 1e-6, number - 1e-6, number + 0.01, number * 1.001, number * 2, -number]
    return st.one_of(st.sampled_from(steps), NUMBERS)


@st.composite
def changed_text(draw: st.DrawFn, samples: Samples, indent: int | None = None) -> str:
    """The text of a changed JSON sample; sometimes with a key twice, or damaged in its bytes."""
    value = draw(changed(samples))
    text = json.dumps(value, indent=indent)
    kind = draw(st.integers(0, 19))
    if kind == 0 and text.startswith("{") and isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        text = f"{{{json.dumps(key)}: {json.dumps(draw(LEAVES))}, {text[1:]}"
    elif kind == 1:
        text = draw(damaged(lambda: [text.encode()])).decode("utf-8", "replace")
    elif kind == 2:
        odd = ["[" * 5000, '{"a":' * 2000, "1" * 5000, "", "null", "\ufeff" + text, text * 2, f"[{text}]"]
        text = odd[draw(st.integers(0, len(odd) - 1))]
    return text


GARBAGE = st.one_of(st.text(max_size=60), VALUES.map(json.dumps))
