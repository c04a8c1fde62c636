"""docs/python.md: what it says is printed is printed."""

from __future__ import annotations

import re

import pytest
from documents import ROOT

import dualsmooth as ds

PAGE = (ROOT / "docs" / "python.md").read_text()


def test_the_refusal_reads_as_the_page_says() -> None:
    smoother, image = ds.load("fashion-mnist"), ds.sample("fashion-mnist", 2)
    with pytest.raises(ds.InputError) as refused:
        smoother.check_image(image[None])
    assert f"\n    {refused.value}\n" in PAGE


def test_the_line_looks_as_on_the_page() -> None:
    cert = ds.load("fashion-mnist").certify(ds.sample("fashion-mnist", 2), budget=ds.Fixed(2_000), seed=0)
    said = re.search(r"such as (<Certificate.*>)", PAGE)
    assert said is not None
    assert re.sub(r"0\.\d{4}|, fixed seed", "", repr(cert)) == re.sub(r"0\.\d{4}", "", said[1])
