"""What the named modes take: passes and seconds an image, measured on the bundle that ships: docs/modes.md.

python scripts/modes_table.py --page docs/modes.md --force
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from frame import add_page, machine, parsed, publish, say

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.smoothing.modes import MODES, Mode
from dualsmooth.runtime.smoothing.settings import ALPHA

PAGE = """# Named modes

For people who do not want to choose a budget: `certify(image, mode="quick")`, `--mode quick`. A mode is a budget by
name; `decide` needs the radius, `mode="decide", r=0.5`, `--mode decide --r 0.5`. Each certificate holds with
probability 1 - alpha whatever the mode, alpha = {alpha:g} unless you say otherwise: a quicker mode proves less, and
never less surely. `--budget` and `--mode` exclude each other. A client sends a server the budget of the mode.

| mode | budget | passes: mean (median) | seconds an image | certified (%) | mean radius | what for |
| --- | --- | ---: | ---: | ---: | ---: | --- |
{rows}

Passes are forward passes of all stages and levels together, selection included. Measured by `python
scripts/modes_table.py` on {images} test images of Fashion-MNIST (0, {step}, …) with the bundle `fashion-mnist` that
ships, rule interval, alpha = {alpha:g}, images one at a time; `decide` at r = {r:g}, where certified means that it said
yes, and the radius is not measured. Seconds: on {machine}; another network takes another time for each pass.
"""


def measured(smoother: ds.Smoother, mode: Mode, images: np.ndarray, r: float) -> str:
    """The row of a mode."""
    asked = r if mode.needs_radius else None
    passes, seconds, radii = [], [], []
    for image in images:
        start = time.perf_counter()
        certificate = smoother.certify(image, mode=mode.name, r=asked, seed=0)
        seconds.append(time.perf_counter() - start)
        passes.append(certificate.passes)
        radii.append(certificate.radius)
    found = np.array(radii)
    certified = 100 * float(np.mean((found > 0) & (found >= (asked or 0))))
    radius = "" if mode.needs_radius else f"{found.mean():.3f}"
    say(f"{mode.name}: {sum(seconds):.1f} s")
    return (
        f"| `{mode.name}` | `{mode.budget(r)}` | {np.mean(passes):,.0f} ({np.median(passes):,.0f}) | "
        f"{np.mean(seconds):.2f} | {certified:.0f} | {radius} | {mode.meaning} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--r", type=float, default=0.5)
    add_page(parser, "--page")
    args = parsed(parser)
    pixels = np.load(SHIPPED_IMAGES)["x"]
    step = len(pixels) // args.images
    images = pixels[::step][: args.images, None]
    with ds.load(SHIPPED_BUNDLE) as smoother:
        smoother.certify(images[0], budget=ds.Fixed(500))  # what is slow once is done
        rows = [measured(smoother, mode, images, args.r) for mode in MODES.values()]
    page = PAGE.format(
        alpha=ALPHA, rows="\n".join(rows), images=len(images), step=step, r=args.r, machine=machine("onnxruntime")
    )
    publish(page, args.page)


if __name__ == "__main__":
    main()
