"""Pictures that are moved towards another answer. There is no gradient in ONNX Runtime: directions come from another
picture, or from votes.

What is moved stays an 8-bit picture, where table noise is the exact law (docs/mathematics.md), and its distance is
that of the picture that is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Seed
from dualsmooth.runtime.noise.table import STEPS
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import short_words
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.votes import CLASSIFIER, PREDICTION, Stream
from dualsmooth.runtime.studio.copies import Copies, Floats

ROUNDS, EACH, BATCH = 4, 1_000, 250
"""Steps of the search by votes, the noisy copies that each is judged by, and how many are drawn at a time."""
FARTHEST = 4.0
"""Where pixels stop at black or white, a direction is followed up to so many times the distance that is asked for."""

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples modulo 1 are spread evenly."""

Double = npt.NDArray[np.float64]


def towards(
    image: Floats, pictures: npt.NDArray[np.uint8], labels: Sequence[int], answer: Sequence[int]
) -> tuple[Double, int]:
    """The unit direction [C,H,W] from `image` to the nearest of `pictures` [N,C,H,W] of a class that is not in
    `answer`, and the number of that picture. Raises `InputError` where there is none."""
    change = pictures.astype(np.float64) / STEPS - image
    distance = np.sqrt((change**2).sum((1, 2, 3)))
    distance[np.isin(labels, answer) | (distance < 0.5 / STEPS)] = np.inf
    if not np.isfinite(distance).any():
        raise InputError("there is no picture of another class to go to; let votes choose the direction")
    nearest = int(np.argmin(distance))
    return change[nearest] / distance[nearest], nearest


def by_votes(
    smoother: Smoother, image: Floats, answer: Sequence[int], level: int, reach: float, check: Callable[[], None]
) -> tuple[Double, int]:
    """A unit direction [C,H,W] in which fewer noisy copies vote for a class of `answer`, and the passes that it took.

    The gradient of a smoothed probability is that of its votes against the noise (Stein 1981): the mean noise of the
    copies that vote otherwise, less that of those that vote for the answer. Steps of equal length along it, `reach` in
    all. An estimate, and no strongest attack. `level`: of the noise; larger ones are tried where no copy votes
    otherwise. Raises `InputError` where none does at any.
    """
    bundle = smoother.bundle
    seed = smoother.suited(Seed.make(None, DEFAULT_NOISE), image)
    spent = 0
    for tried in range(level, len(bundle.sigmas)):
        copies, change = Copies(smoother, seed, Stream(CLASSIFIER, tried, PREDICTION)), np.zeros(image.shape)
        for _ in range(ROUNDS):
            check()
            gradient = _against(copies, stepped(image, change), answer)
            spent += EACH
            if gradient is None:
                break
            change = change + reach / ROUNDS * gradient / np.linalg.norm(gradient)
        if change.any():
            return change / np.linalg.norm(change), spent
    name = short_words(Part(tuple(answer)), bundle.classes)
    raise InputError(f"all {spent:,} noisy copies vote for {name}: no direction to be seen; go towards a picture")


def _against(copies: Copies, image: Floats, answer: Sequence[int]) -> Double | None:
    """The mean noise of copies that vote for no class of `answer`, less that of the others; None where one of both has
    no copies."""
    sums, counts = np.zeros((2, *image.shape)), np.zeros(2)
    for _ in range(EACH // BATCH):
        noisy, votes = copies.draw(image, BATCH)
        noise, otherwise = noisy.astype(np.float64) - image, ~np.isin(votes, answer)
        for side, chosen in enumerate((~otherwise, otherwise)):
            sums[side] += noise[chosen].sum(0)
            counts[side] += chosen.sum()
    if not counts.all():
        return None
    gradient = sums[1] / counts[1] - sums[0] / counts[0]
    return gradient if gradient.any() else None


def stepped(image: Floats, change: Double) -> Floats:
    """image + change as an 8-bit picture: float32 [C,H,W] on the lattice k/255, in [0, 1].

    Each pixel has a threshold of its own for being rounded up, spread evenly over [0, 1): equal changes of many pixels
    do not all become visible at the same distance.
    """
    thresholds = (np.arange(image.size) * GOLDEN % 1).reshape(image.shape)
    steps = np.rint(STEPS * image.astype(np.float64)) + np.floor(STEPS * change + thresholds)
    return np.asarray(np.clip(steps, 0, STEPS).astype(np.float32) / np.float32(STEPS))


def moved(image: Floats, direction: Double, distance: float) -> Floats:
    """The 8-bit picture along `direction`, a unit vector, that is farthest from `image` but not farther than
    `distance` (L2)."""
    if apart(image, stepped(image, FARTHEST * distance * direction)) <= distance:
        return stepped(image, FARTHEST * distance * direction)
    low, high = 0.0, FARTHEST * distance
    for _ in range(40):
        middle = (low + high) / 2
        near = apart(image, stepped(image, middle * direction)) <= distance
        low, high = (middle, high) if near else (low, middle)
    return stepped(image, low * direction)


def apart(image: Floats, other: Floats) -> float:
    """The L2 distance of two images."""
    return float(np.linalg.norm(other.astype(np.float64) - image))
