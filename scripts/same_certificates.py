"""Whether two source trees give the same certificates, bit by bit: after a change that must not change any.

    git worktree add /tmp/before v0.1.0
    python scripts/same_certificates.py /tmp/before . --images 3

Each tree reads the committed results (`docs/results/` of this one) and recomputes every certificate under every rule,
route and alpha; then it certifies and predicts shipped images with a fixed seed, with every rule and budget.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

import dualsmooth as ds

ROOT = Path(__file__).parents[1]
BUNDLE, IMAGES = (ROOT / "runtime" / "data" / name for name in ("fashion-mnist", "fashion-mnist-test-200.npz"))
RULES, ROUTES = ("interval", "paper", "multiscale"), ("mode", "median", "quantile:0.3")
ALPHAS = (1e-3, 1e-2)
BUDGETS = ("fixed:300", "adaptive:500:0.05", "at-radius:0.2:500", "at-radii:0,0.2,0.4:500")
NOISES = ("float", "lattice")


def singles(sigmas: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"single:{sigma:g}" for sigma in sigmas)


def recomputed(step: int) -> Iterator[tuple[str, str]]:
    """Names and texts of certificates of the committed results, every `step`-th, under all terms."""
    for path in sorted((ROOT / "docs" / "results").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in [row for row in rows if "certificate" in row][::step]:
            made = ds.Certificate.from_dict(row["certificate"])
            name = f"{path.stem} {row['index']}"
            yield name, made.to_json()
            for rule, route, alpha in product((*RULES, *singles(made.terms.sigmas)), ROUTES, ALPHAS):
                try:
                    text = made.recompute(alpha=alpha, rule=rule, route=route).to_json()
                except ds.DualSmoothError as error:
                    text = f"{type(error).__name__}: {error}"
                yield f"{name} {rule} {route} {alpha:g}", text


def sampled(count: int) -> Iterator[tuple[str, str]]:
    """Names and texts of certificates and predictions of `count` shipped images, with a fixed seed."""
    images = np.load(IMAGES)["x"][:count]
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    with ds.load(BUNDLE) as smoother:
        rules = (*RULES, *singles(smoother.bundle.sigmas))
        for rule, route, budget, noise, every in product(rules, (None, *ROUTES), BUDGETS, NOISES, (False, True)):
            name = f"{rule} {route} {budget} {noise} {every}"
            try:
                made = smoother.certify_many(
                    images,
                    alpha=0.01,
                    budget=ds.parse_budget(budget),
                    rule=rule,
                    route=route,
                    seed=5,
                    noise=ds.parse_noise(noise),
                    all_levels=every,
                )
                yield name, "\n".join(certificate.to_json() for certificate in made)
            except ds.DualSmoothError as error:
                yield name, f"{type(error).__name__}: {error}"
        for rule, image in product(RULES[:2], images):
            yield f"predict {rule}", smoother.predict(image, n=200, rule=rule, seed=5, noise=ds.Noise()).to_json()


def texts(tree: Path, step: int, images: int) -> list[str]:
    """What a source tree gives: a line each, of a name and the SHA-256 of a text."""
    command = [sys.executable, __file__, "--list", str(tree), f"--step={step}", f"--images={images}"]
    env = os.environ | {"PYTHONPATH": str((tree / "src").resolve())}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, help="two source trees")
    parser.add_argument("--step", type=int, default=1, help="every STEP-th of the committed results")
    parser.add_argument("--images", type=int, default=3, help="shipped images to certify")
    parser.add_argument(
        "--list", action="store_true", help="what one tree gives, as lines; it must be the one imported"
    )
    args = parser.parse_args()
    if args.list:
        if not Path(ds.__file__).resolve().is_relative_to(args.trees[0].resolve()):
            parser.error(f"{ds.__file__} was imported, not {args.trees[0]}")
        for number, (name, text) in enumerate((*recomputed(args.step), *sampled(args.images))):
            print(number, name, hashlib.sha256(text.encode()).hexdigest())
        return 0
    if len(args.trees) != 2:
        parser.error(f"{len(args.trees)} trees; expected two, e.g. /tmp/before .")
    before, after = (texts(tree, args.step, args.images) for tree in args.trees)
    unlike = [a or b for a, b in zip(before, after, strict=False) if a != b]
    if unlike or len(before) != len(after):
        print(
            f"{len(unlike)} of {len(before)} and {len(after)} differ, first: {(unlike or ['the last ones'])[0][:120]}"
        )
        return 1
    print(f"all {len(before)} texts are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
