"""How fast noise is made, and how near to its law: every mode and generator on one core (docs/noise.md).

Processor time of one thread, so that other work on the machine disturbs little; medians of turns that take all kinds of
noise in turn. The law of a table is summed up in exact arithmetic against the normal distribution to 60 digits.

    python scripts/noise_speed.py --out docs/noise.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from statistics import median
from typing import Any

import mpmath
import numpy as np
from frame import add_page, parsed, publish

from dualsmooth.runtime.engine.instruction_set import described
from dualsmooth.runtime.noise.add import LATTICE, MODES, add_noise
from dualsmooth.runtime.noise.generators import GENERATORS, Source
from dualsmooth.runtime.noise.table import ENTRIES, OPEN, STEPS, Table, table_of

SHAPES = {"28 x 28": (1024, 1, 28, 28), "3 x 32 x 32": (256, 3, 32, 32), "3 x 224 x 224": (8, 3, 224, 224)}
SIGMAS = (0.002, 0.05, 0.12, 0.25, 0.5, 1.0, 2.0)
DIGITS = 60


def rates(turns: int, sigma: float) -> dict[tuple[str, str], dict[str, float]]:
    """Million values a second by (mode, generator) and image size."""
    kinds = [(mode, name) for mode in MODES for name, g in GENERATORS.items() if not g.needs or find_spec(g.needs[0])]
    kinds = [kind for kind in kinds if kind[1] != "Philox4x32"]  # for GPUs
    seen: dict[tuple[tuple[str, str], str], list[float]] = {(kind, shape): [] for kind in kinds for shape in SHAPES}
    for turn in range(turns + 1):
        for kind, shape in list(seen)[:: 1 if turn % 2 else -1]:
            rate = timed(*kind, SHAPES[shape], sigma)
            seen[kind, shape] += [rate] * (turn > 0)  # the first turn warms up
    return {kind: {shape: median(seen[kind, shape]) for shape in SHAPES} for kind in kinds}


def timed(mode: str, name: str, shape: tuple[int, ...], sigma: float) -> float:
    source, image = Source(GENERATORS[name], np.random.SeedSequence()), np.full(shape[1:], 51 / STEPS, np.float32)
    out = np.zeros(shape, np.float32)
    add_noise(source, image, sigma, out, mode)
    start = time.thread_time()
    for _ in range(2):
        add_noise(source, image, sigma, out, mode)
    return 2 * out.size / (time.thread_time() - start) / 1e6


def probabilities(table: Table) -> list[Any]:
    """What a table draws, k = first, first + 1, …, in exact arithmetic."""
    steps = table.values[table.values != OPEN].astype(int) - table.first
    counts = np.bincount(steps, minlength=len(table.bounds) + 1).tolist()
    still, ends = ENTRIES - len(steps), [0, *table.bounds.tolist(), 1 << 64]
    drawn = zip(counts, pairwise(ends), strict=True)
    return [mpmath.mpf((count << 64) + still * (high - low)) / (ENTRIES << 64) for count, (low, high) in drawn]


def variation(sigma: float) -> Any:
    """Total variation between what is drawn and the rounded Gaussian, all of its tails included."""
    table, s = table_of(sigma), STEPS * mpmath.mpf(sigma)
    ends = [(k + mpmath.mpf(1) / 2) / s for k in range(-table.first + 1)]
    above = [mpmath.erfc(end / mpmath.sqrt(2)) / 2 for end in ends]
    half = [high - low for high, low in pairwise(above)]
    expected = [*half[::-1], 1 - 2 * above[0], *half]
    pairs = zip(probabilities(table), expected, strict=True)
    return (sum((abs(p - q) for p, q in pairs), mpmath.mpf(0)) + 2 * above[-1]) / 2


def lines(args: argparse.Namespace) -> Iterator[str]:
    found = rates(args.turns, args.sigma)
    usual = found["float", "SFC64"]
    yield f"""# Noise

`python scripts/noise_speed.py --out docs/noise.md --turns {args.turns}` on one core of an {described()},
NumPy {np.__version__}.

## Speed

Million noisy values a second: noise drawn, scaled and added to an image, sigma = {args.sigma:g}, in processor time of
one thread; medians of {args.turns} turns that take every kind of noise in turn. In brackets: against `float` by `SFC64`
in the same run.

| mode | generator | {" | ".join(SHAPES)} |
| --- | --- |{" ---: |" * len(SHAPES)}"""
    for (mode, name), row in found.items():
        shown = " | ".join(f"{rate:,.0f} ({rate / usual[shape]:.2f})" for shape, rate in row.items())
        yield f"| `{mode}` | `{name}` | {shown} |"
    yield f"""
`{LATTICE}` and `table` draw from the same law: the first rounds normals, the second looks integers up.

## How near to the law

Total variation between what `table` draws and round(255 sigma z), z standard normal to {DIGITS} digits; "open": the
share of values that need more than their 16 bits.

| sigma | total variation | open | largest step |
| ---: | ---: | ---: | ---: |"""
    for sigma in SIGMAS:
        table = table_of(sigma)
        power = mpmath.nstr(mpmath.log(variation(sigma), 2), 4)
        yield f"| {sigma:g} | 2^{power} | {(table.values == OPEN).mean():.3%} | {-table.first} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_page(parser)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--sigma", type=float, default=0.5)
    args = parsed(parser)
    with mpmath.workdps(DIGITS):
        publish("\n".join(lines(args)) + "\n", args.page)


if __name__ == "__main__":
    main()
