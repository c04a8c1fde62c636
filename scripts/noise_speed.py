"""How fast noise is made and added, for every generator and mode: writes docs/noise.md.

python scripts/noise_speed.py            # one core; the kinds take turns, medians of ROUNDS turns
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise import GENERATORS, Noise, Seed, add_noise
from dualsmooth.runtime.votes import CLASSIFIER, ESTIMATION, Stream

ROUNDS = 15
BATCH = 256
SHAPES = ((1, 28, 28), (3, 32, 32), (3, 224, 224))
KINDS = [Noise(mode, generator) for generator in GENERATORS for mode in ("float", "lattice")]
KINDS += [Noise("float", "SFC64", shared=True)]


def measure(shape: tuple[int, int, int]) -> dict[str, float]:
    """Million pixels a second that are drawn, scaled and added, for each kind that this machine has."""
    image = np.full(shape, 102 / 255, np.float32)
    rows = BATCH if np.prod(shape) < 1e5 else 16
    out = np.empty((rows, *shape), np.float32)
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for noise in KINDS:
            seed = Seed(1, noise=noise)
            try:
                seed.require_generator()
            except InputError:
                continue
            generator = seed.generator(Stream(CLASSIFIER, 0, ESTIMATION))
            start = time.perf_counter()
            add_noise(generator, image, 0.5, out, noise.mode)
            times.setdefault(str(noise), []).append(time.perf_counter() - start)
    return {name: out.size / statistics.median(taken) / 1e6 for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/noise.md"))
    args = parser.parse_args()
    speeds = {shape: measure(shape) for shape in SHAPES}
    head = [f"{'x'.join(map(str, shape))}" for shape in SHAPES]
    lines = [
        "# What noise costs",
        "",
        f"Million pixels a second on one core ({platform.machine()}), drawn, scaled, added to the image: medians of "
        f"{ROUNDS} turns, all kinds in turn. In brackets: times the speed of `float`, the default. `shared`: the noise "
        "is drawn once for all images, so that what is left is to copy, scale and add it. Written by "
        "`python scripts/noise_speed.py`.",
        "",
        f"| `--noise` | {' | '.join(head)} |",
        f"|---|{'---|' * len(head)}",
    ]
    for name in speeds[SHAPES[0]]:
        cells = [f"{speeds[s][name]:.0f} ({speeds[s][name] / speeds[s]['float']:.2f})" for s in SHAPES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_atomically(args.out, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
