"""Certified radii in other norms, as far as they follow from the L2 radius. What they are worth: docs/norms.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.rounding import round_down


@dataclass(frozen=True)
class Norm:
    """A norm: how it is written, how axes name it, and whether its ball in an L2 ball shrinks with the dimension."""

    name: str
    title: str
    shrinks: bool = False

    def radius(self, l2: float, values: int | None) -> float:
        """The largest r such that all changes of `values` numbers below r in this norm are below `l2` in L2, rounded
        down to 1e-6. |v|_2 <= |v|_1, and |v|_2 <= sqrt(d) |v|_inf, each with equality for some v. Raises `InputError`
        where `values` is needed and not known."""
        if not self.shrinks:
            return l2
        if values is None:
            raise InputError(
                f"norm {self.name} needs the shape of the image, which a certificate from a file does not hold; pass "
                "shape=bundle.input_shape, or --dataset or --input-shape to report"
            )
        return round_down(l2 / math.sqrt(values))


NORMS = {norm.name: norm for norm in (Norm("l2", "L2"), Norm("l1", "L1"), Norm("linf", "L-infinity", shrinks=True))}
"""By the names that are typed; the first is that of all certificates."""
L2 = next(iter(NORMS))
FORMS = one_of(NORMS)


def norm_named(name: str) -> Norm:
    """The norm of a name. Raises `InputError`.

    >>> norm_named("linf").radius(0.75, 3 * 32 * 32)
    0.013531
    """
    if not isinstance(name, str) or name not in NORMS:
        raise InputError(f"norm {str(name)[:40]!r} is unknown; expected {FORMS}")
    return NORMS[name]
