"""The seeds of a stream of images, each with noise of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TypeVar

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Noise, Seed

T = TypeVar("T")


class Seeds:
    """The seeds of the images of one call: of one fixed entropy, of a run's `Seed`, or (the default) each drawn afresh
    when its turn comes. Raises `InputError` where this machine cannot make such noise."""

    def __init__(self, seed: int | Seed | None, noise: Noise | None) -> None:
        fresh = seed is None and not getattr(noise, "shared", False)
        base = seed if isinstance(seed, Seed) else Seed.make(0 if fresh else seed, noise or DEFAULT_NOISE)
        base.require_generator()
        self.noise, self._base = base.noise, None if fresh else base

    def at(self, index: int) -> Seed:
        return (self._base or Seed.make(None, self.noise)).at(index)


def numbered(images: Iterable[T], indices: Iterable[int] | None) -> Iterator[tuple[T, int]]:
    """Each image with its index: 0, 1, 2, … unless given. Raises `InputError` where the indices run out first, or one
    comes twice: two certificates would share their noise."""
    if indices is None:
        yield from zip(images, count())
        return
    numbers, used = iter(indices), set[int]()
    for image in images:
        index = next(numbers, None)
        if index is None:
            raise InputError("there are fewer indices than images; expected one for each")
        if index in used:
            raise InputError(
                f"index {index} is given twice; expected another one for each image, with noise of its own"
            )
        used.add(index)
        yield image, index
