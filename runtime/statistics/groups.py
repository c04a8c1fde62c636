"""Groups: named sets of classes, which answer where the class itself is in doubt (docs/mathematics.md, theorem 8).

Sets are disjoint, or one holds the other. Where they are nested, they make several maps, each coarser than the one
before: the first merges the innermost sets, the last the outermost ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dualsmooth.runtime.errors import InputError

MOST = 100_000
FORM = 'an object from name to classes, e.g. {"footwear": ["Sandal", "Sneaker"]}; an object in place of classes nests'


class Part(NamedTuple):
    """What one answer stands for: the classes, ascending, and the name of their group ("" for a class by itself)."""

    classes: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class Groups:
    """Named sets of the classes 0 to `count` - 1. Made by `of` or `resolved`, which check them."""

    parts: tuple[Part, ...]
    count: int

    @classmethod
    def of(cls, stated: Any, count: int) -> Groups:
        """From names and class numbers, as manifests and certificates state them. Raises `InputError` unless there are
        groups, each of at least two classes and not of all, with names and members of their own.

        >>> Groups.of({"shoes": [5, 7, 9]}, 10).maps()[0][-1]
        Part(classes=(5, 7, 9), name='shoes')
        """
        if not isinstance(stated, Mapping) or not 1 <= len(stated) <= MOST:
            raise InputError(f"groups are {str(stated)[:60]}; expected {FORM}")
        parts = []
        for name, members in stated.items():
            if not (isinstance(name, str) and 1 <= len(name) <= 200 and name.isprintable()):
                raise InputError(f"group {str(name)[:60]!r} has no usable name; expected 1 to 200 printable letters")
            good = isinstance(members, list | tuple) and all(type(c) is int and 0 <= c < count for c in members)
            if not good or not 2 <= len(members) < count or sorted(set(members)) != list(members):
                raise InputError(
                    f"group {name!r} is {str(members)[:60]}; expected 2 to {count - 1} different class numbers from 0 "
                    f"to {count - 1}, ascending"
                )
            parts.append(Part(tuple(members), name))
        _check_apart(parts)
        return cls(tuple(parts), count)

    @classmethod
    def resolved(cls, given: Any, names: Sequence[str]) -> Groups:
        """From what a person writes (`FORM`), for classes of these names; numbers stand for classes too. Raises
        `InputError`.

        >>> Groups.resolved({"shoes": ["Sneaker", "Boot"]}, ["Shirt", "Boot", "Sneaker"]).to_dict()
        {'shoes': [1, 2]}
        """
        if isinstance(given, Groups):
            given = given.to_dict()
        if not isinstance(given, Mapping):
            raise InputError(f"groups are {str(given)[:60]}; expected {FORM}")
        found: dict[str, list[int]] = {}
        for name, members in given.items():
            _gather(name, members, names, found)
        return cls.of(found, len(names))

    def to_dict(self) -> dict[str, list[int]]:
        """Inverse of `of`."""
        return {part.name: list(part.classes) for part in self.parts}

    def maps(self) -> list[tuple[Part, ...]]:
        """The maps from classes to groups, the finest first: each a list of parts that hold every class once. Classes
        by themselves come first, in order, then the groups, in theirs."""
        sets = [set(part.classes) for part in self.parts]
        heights = [0] * len(sets)
        for i in sorted(range(len(sets)), key=lambda i: len(sets[i])):
            heights[i] = 1 + max((heights[j] for j in range(len(sets)) if sets[j] < sets[i]), default=0)
        return [self._map(sets, [i for i, h in enumerate(heights) if h <= top]) for top in range(1, max(heights) + 1)]

    def _map(self, sets: list[set[int]], low: list[int]) -> tuple[Part, ...]:
        """The map to the largest of the sets `low`."""
        kept = [i for i in low if not any(sets[i] < sets[j] for j in low)]
        covered = set().union(*(sets[i] for i in kept))
        alone = [Part((c,)) for c in range(self.count) if c not in covered]
        return (*alone, *(self.parts[i] for i in kept))


def _check_apart(parts: Sequence[Part]) -> None:
    """Raises `InputError` where two sets are equal, or overlap and neither holds the other."""
    owners: dict[int, list[Part]] = {}
    for part in sorted(parts, key=lambda part: -len(part.classes)):
        outer = owners.get(part.classes[0], [])
        if any(owners.get(c, []) != outer for c in part.classes):
            other = next(o for c in part.classes for o in owners.get(c, []) if not set(part.classes) <= set(o.classes))
            raise InputError(
                f"groups {other.name!r} and {part.name!r} overlap; expected one to hold the other, or none"
            )
        if outer and len(outer[-1].classes) == len(part.classes):
            raise InputError(f"groups {outer[-1].name!r} and {part.name!r} hold the same classes; drop one of them")
        for c in part.classes:
            owners[c] = [*outer, part]


def _gather(name: Any, members: Any, names: Sequence[str], found: dict[str, list[int]]) -> list[int]:
    """The class numbers of a group, which goes into `found` with those inside it."""
    if name in found:
        raise InputError(f"group {str(name)[:60]!r} is there twice; expected a name of its own for each")
    if isinstance(members, Mapping):
        found[name] = []  # an outer group stands before those inside it
        found[name] = sorted(c for n, m in members.items() for c in _gather(n, m, names, found))
    elif isinstance(members, list | tuple):
        found[name] = sorted(_numbers(name, members, names))
    else:
        raise InputError(f"group {str(name)[:60]!r} is {str(members)[:60]}; expected classes, or groups inside it")
    return found[name]


def _numbers(group: Any, members: Sequence[Any], names: Sequence[str]) -> Iterator[int]:
    for member in members:
        if type(member) is int:
            yield member
            continue
        places = [i for i, name in enumerate(names) if name == member]
        if len(places) != 1:
            what = "is no class" if not places else "is the name of several classes"
            some = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
            raise InputError(
                f"group {str(group)[:60]!r}: {str(member)[:60]!r} {what}; expected some of {some}, or class numbers"
            )
        yield places[0]
