"""JSON on which readers could disagree is refused."""

from __future__ import annotations

import pytest

from dualsmooth.runtime.strict_json import loads


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', "NaN", "[Infinity]", "1e999", "[" * 5000, "9" * 5000, "{", "", '{"b": {"a": 1, "a": 1}}'],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        loads(text)
    assert len(str(caught.value).splitlines()) == 1


def test_accepted() -> None:
    assert loads(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
