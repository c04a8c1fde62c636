"""Groups: what is refused, and the maps that nested sets make."""

from __future__ import annotations

from typing import Any

import pytest

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.groups import Groups, Part
from dualsmooth.runtime.statistics.questions import stated_question

NAMES = ("Shirt", "Coat", "Boot", "Sandal", "Bag", "twin", "twin")


def test_nested_sets_make_a_map_for_each_height() -> None:
    groups = Groups.resolved({"clothes": {"warm": ["Coat", "Boot"], "light": [0, "Sandal"]}, "rest": [4, 5]}, NAMES)
    first, second = groups.maps()
    assert first == (Part((6,)), Part((1, 2), "warm"), Part((0, 3), "light"), Part((4, 5), "rest"))
    assert second == (Part((6,)), Part((0, 1, 2, 3), "clothes"), Part((4, 5), "rest"))
    for parts in (first, second):
        assert sorted(c for part in parts for c in part.classes) == list(range(7))


def test_a_stated_answer_names_its_question() -> None:
    """A group: the finest map that has it; a set, or a class: votes as they are."""
    groups = Groups.resolved({"clothes": {"warm": ["Coat", "Boot"], "light": [0, "Sandal"]}, "rest": [4, 5]}, NAMES)
    said: dict[str, Any] = {"alpha": 0.001, "rule": "paper", "route": None, "budget": Fixed(1_000)}
    terms = checked_terms((0.25, 0.5), 0.5, 7, **said, groups=groups)
    first, second = groups.maps()
    for parts, part in ((first, first[1]), (first, first[3]), (second, second[1])):
        question = stated_question(terms, part)
        assert (question.parts, question.terms.classes, question.terms.coarser) == (parts, len(parts), False)
    terms = checked_terms((0.25, 0.5), 0.5, 7, **said, at_most=3)
    for part, among in ((None, ()), (Part((0, 2, 5)), (0, 2, 5))):
        question = stated_question(terms, part)
        assert (question.parts, question.terms.among, question.terms.coarser) == ((), among, False)


def test_they_read_back() -> None:
    groups = Groups.of({"a": [0, 1], "b": [0, 1, 5], "c": [2, 3]}, 7)
    assert Groups.of(groups.to_dict(), 7) == groups == Groups.resolved(groups, NAMES)
    assert [len(parts) for parts in groups.maps()] == [5, 4]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["Shirt"], "expected an object"),
        ({}, "expected an object"),
        ({"": [0, 1]}, "no usable name"),
        ({"a\nb": [0, 1]}, "no usable name"),
        ({"one": [0]}, "expected 2 to 6 different class numbers"),
        ({"all": list(range(7))}, "expected 2 to 6 different class numbers"),
        ({"twice": [0, 0, 1]}, "different class numbers"),
        ({"far": [0, 7]}, "from 0 to 6"),
        ({"true": [0, True]}, "'True' is no class"),
        ({"a": [0, 1], "b": [1, 2]}, "overlap"),
        ({"a": [0, 1, 2, 3], "b": [3, 4]}, "overlap"),
        ({"a": [0, 1], "b": [1, 0]}, "hold the same classes"),
        ({"a": ["Hat", "Coat"]}, "'Hat' is no class; expected some of 'Shirt'"),
        ({"a": ["twin", "Coat"]}, "is the name of several classes"),
        ({"a": "Coat"}, "expected classes, or groups inside it"),
        ({"a": {"a": [0, 1]}}, "is there twice"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Groups.resolved(given, NAMES)


@pytest.mark.parametrize("stated", [{"a": [1, 0]}, {"a": ["Coat", "Boot"]}, {"a": [0.0, 1.0]}, [[0, 1]], None])
def test_manifests_and_certificates_state_numbers_in_order(stated: Any) -> None:
    with pytest.raises(InputError, match="group"):
        Groups.of(stated, 7)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"at_most": 0}, "at_most is 0; expected 1 to 2"),
        ({"at_most": 3}, "expected 1 to 2 of 3 classes"),
        ({"at_most": True}, "at_most is True"),
        ({"at_most": 2, "groups": Groups.of({"a": [0, 1]}, 3)}, "choose one of them"),
        ({"groups": Groups.of({"a": [0, 1]}, 4)}, "groups of 4 classes with 3 classes"),
        ({"groups": Groups.of({"a": [0, 1]}, 3), "rule": "multiscale"}, "takes neither groups nor at_most"),
    ],
)
def test_terms_that_do_not_fit_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_terms((0.5, 1.0), 1.0, 3, alpha=0.01, route=None, budget=Fixed(100), **({"rule": "interval"} | asked))
