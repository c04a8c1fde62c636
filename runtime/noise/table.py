"""Gaussian noise on the lattice Z / 255, drawn from its own law: no normals, no rounding.

round(255 sigma z), z standard normal, is k with probability P(k) = Phi((k + 1/2) / s) - Phi((k - 1/2) / s), where
s = 255 sigma. Sixteen random bits choose one of 65,536 entries, floor(65,536 P(k)) of which say k. The few entries that
are left over stay open; where one is hit, a 64-bit word draws k from what the others leave of P. Total variation from
the Gaussian is below 2^-53 (docs/mathematics.md, The law of lattice noise).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.noise.levels import LARGEST

STEPS = 255
"""Lattice noise lives on Z / STEPS, as the pixels of 8-bit images do."""
ENTRIES = 1 << 16
OPEN = np.iinfo(np.int16).min
"""What an entry says that alone does not decide."""
REACH = 10
"""In standard deviations: 2^-76 of the Gaussian lies beyond, and is drawn as if it lay within."""

_BITS = 320
"""Masses are computed as integers, in units of 2^-320: the same on every machine."""
_TOLERANCE = 1e-9
"""More than SciPy's error, relatively, and far less than an entry."""


@dataclass(frozen=True)
class Table:
    """The law of round(255 sigma z). Arrays of one library (NumPy, CuPy).

    `values` int16 [65536]: what each entry says. `bounds` uint64: a word w settles an open entry at `first` + the
    number of bounds <= w. `guide` int16 [65536]: the same, by the upper 16 bits of w alone, where these suffice.
    """

    values: Any
    bounds: Any
    guide: Any
    first: int

    def draw(self, bits: Any, words: Callable[[int], Any], xp: Any = np, room: Any = None) -> Any:
        """int16 of the size of `bits` (uint16). `words(n)`: the next n uniform 64-bit words, one for each open entry,
        in order. `room`: NumPy's intp of that size, to be written over."""
        steps = _looked_up(self.values, bits, xp, room)
        still = xp.flatnonzero(steps == OPEN)
        if still.size:
            steps[still] = self._settled(words(int(still.size)), xp)
        return steps

    def _settled(self, words: Any, xp: Any) -> Any:
        steps = _looked_up(self.guide, words >> np.uint64(48), xp)
        still = xp.flatnonzero(steps == OPEN)
        if still.size:
            found = xp.searchsorted(self.bounds, words[still], side="right")
            steps[still] = (found + self.first).astype(np.int16)
        return steps


def _looked_up(table: Any, entries: Any, xp: Any, room: Any = None) -> Any:
    """table[entries], flat."""
    if xp is not np:
        return table[entries.reshape(-1)]
    room = np.empty(entries.size, np.intp) if room is None else room[: entries.size]
    np.copyto(room.reshape(entries.shape), entries)
    return np.take(table, room, mode="wrap")  # twice as fast as table[entries]; none is outside


@lru_cache(maxsize=128)
def table_of(sigma: float, xp: Any = np, device: str = "") -> Table:
    """The table of one noise level, for arrays of `xp` on `device`. Raises `InputError` for levels above `LARGEST`, and
    `EngineError` where the table is not that of the normal distribution."""
    if xp is not np:
        made = table_of(sigma)
        return Table(xp.asarray(made.values), xp.asarray(made.bounds), xp.asarray(made.guide), made.first)
    if not 0 < sigma <= LARGEST:
        raise InputError(f"table noise has levels up to {LARGEST:g}, not {sigma:g}; use lattice or float noise")
    made = _made(masses(sigma))
    require_exact(made, sigma)
    return made


def _made(masses: list[int]) -> Table:
    """The table of steps k with probabilities proportional to `masses[|k|]`, in exact arithmetic."""
    whole, first = 2 * sum(masses) - masses[0], 1 - len(masses)
    each = [divmod(masses[abs(k)] * ENTRIES, whole) for k in range(first, len(masses))]
    counts = [count for count, _ in each]
    still = ENTRIES - sum(counts)
    values = np.repeat(np.arange(first, len(masses), dtype=np.int16), counts)
    values = np.concatenate([values, np.full(still, OPEN, np.int16)])
    sums = [*accumulate(rest for _, rest in each)][:-1] if still else []
    bounds = np.array([min((total << 64) // (still * whole), (1 << 64) - 1) for total in sums], np.uint64)
    words = np.arange(ENTRIES, dtype=np.uint64) << np.uint64(48)
    low, high = (np.searchsorted(bounds, w, side="right") for w in (words, words | np.uint64((1 << 48) - 1)))
    guide = np.where(low == high, low + first, OPEN).astype(np.int16)
    for array in (values, bounds, guide):
        array.flags.writeable = False
    return Table(values, bounds, guide, first)


def masses(sigma: float) -> list[int]:
    """The Gaussian's masses between k - 1/2 and k + 1/2 steps of 1/255, k = 0, 1, … up to `REACH` deviations, all in
    the same unit.

    With b = 1 / (2 s^2), this is exp(-b k^2) times the integral of exp(-b t^2) cosh(2 b k t) for t from -1/2 to 1/2: a
    power series in (b k)^2 without a negative term (docs/mathematics.md, The law of lattice noise).
    """
    s = STEPS * Fraction(sigma)
    b, reach = 1 / (2 * s * s), int(REACH * s + Fraction(1, 2))
    if not reach:
        return [1]
    series = _series(b, reach)
    found, gauss, ratio, step = [], 1 << _BITS, _exp(-b), _exp(-2 * b)
    for k in range(reach + 1):
        total = 0
        for term in series:
            total = total * k * k // (reach * reach) + term
        found.append(gauss * total >> _BITS)
        gauss, ratio = gauss * ratio >> _BITS, ratio * step >> _BITS
    return found


def _series(b: Fraction, reach: int) -> list[int]:
    """The coefficients of (k / reach)^2j, the highest j first; the inner sum is exp(b/4) times the integral of
    (2 t)^2j exp(-b t^2)."""
    half, square, found = int(b / 2 * (1 << _BITS)), (b * reach) ** 2, list[int]()
    power = Fraction(1)
    while not found or found[-1]:
        j, inner, term, factor = len(found), 0, 1 << _BITS, 2 * len(found) + 3
        while term:
            inner += term
            term, factor = (term * half >> _BITS) // factor, factor + 2
        found.append(int(inner * power / math.factorial(2 * j + 1)))
        power *= square
    return found[::-1]


def _exp(x: Fraction) -> int:
    with localcontext(prec=_BITS):
        return int((Decimal(x.numerator) / Decimal(x.denominator)).exp() * (1 << _BITS))


def law(table: Table) -> npt.NDArray[np.float64]:
    """The probabilities of `first`, `first` + 1, … under a table, as float64."""
    size = len(table.bounds) + 1
    steps = table.values.astype(np.int64) - table.first
    steps = steps[(table.values != OPEN) & (steps >= 0) & (steps < size)]
    ends = np.concatenate([np.zeros(1, np.uint64), table.bounds])
    widths = np.diff(ends).astype(np.float64) * 2.0**-64
    rest = np.append(widths, ((1 << 64) - int(ends[-1])) * 2.0**-64)
    still = int((table.values == OPEN).sum())
    shares: npt.NDArray[np.float64] = (np.bincount(steps, minlength=size) + still * rest) / ENTRIES
    return shares


def require_exact(table: Table, sigma: float) -> None:
    """Raises `EngineError` where a table is not that of the normal distribution, as SciPy has it."""
    steps, s = np.abs(np.arange(table.first, 1 - table.first)), STEPS * sigma
    expected = ndtr((0.5 - steps) / s) - ndtr((-0.5 - steps) / s)
    found = law(table)
    if len(found) == len(expected):
        off = np.abs(found - expected) > _TOLERANCE * expected + 2.0**-64
        if not off.any():
            return
    raise EngineError(f"noise table: at sigma {sigma:g} it is not that of the normal distribution; it is broken")
