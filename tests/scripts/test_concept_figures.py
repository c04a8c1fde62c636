"""The pictures of docs/concepts.md are those that the script draws, and the page says what they show."""

from __future__ import annotations

import re
from pathlib import Path

import concept_figures
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "concepts.md").read_text()


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return concept_figures.figures(concept_figures.case())


def without_pixels(svg: str) -> str:
    """Another zlib packs the same pixels otherwise."""
    return re.sub(r"base64,[^\"]*", "", svg)


def test_the_committed_pictures_are_those_of_the_script(drawn: dict[str, str]) -> None:
    assert {path.name for path in (DOCS / "images").glob("concept-*")} == set(drawn)
    for name, svg in drawn.items():
        assert without_pixels((DOCS / "images" / name).read_text()) == without_pixels(svg), name


def test_the_page_shows_all_of_them_and_says_their_figures(drawn: dict[str, str]) -> None:
    assert all(f"(images/{name})" in PAGE for name in drawn)
    said = set(re.findall(r"\b\d\.\d{3,}\b|\b\d,\d{3}\b", PAGE)) - {"0.001"}
    assert said
    assert not [figure for figure in said if not any(figure in svg for svg in drawn.values())]
    assert f"image {concept_figures.INDEX} " in PAGE


def test_the_radius_is_what_the_paper_and_the_rule_make_of_the_votes() -> None:
    certificate = concept_figures.case().certificate
    assert f"about {certificate.recompute(rule='paper').radius:.2f}" in PAGE
    assert certificate.radius == certificate.outcome.class_radii[1] > certificate.outcome.exclusion[1]
