"""Tries to break certificates: projected gradient descent on the smoothed networks, inside the certified radius.

Every image is certified (interval rule), then each of the three claims of its certificate is attacked at 0.999 of its
radius, and, as a control, well beyond it:

- route: within `route_radius` the route stays; the attack pushes the estimator's votes to the nearest other level
- label: within `class_radius` the classifier at the route's level keeps the label; the attack pushes it away
- decision: within `radius` the dual classifier keeps the label; the attack pushes the route to another level *and*
  that level's classifier away from the label

Gradients are averages over noise (expectation over transformation; SmoothAdv of Salman et al. 2019) through a PyTorch
twin of the deployed networks. A claim counts as broken only where votes of the deployed networks at the attacked input
prove it: exact Clopper-Pearson at 1e-6. Attacked inputs may leave [0, 1], as the claims cover them too. Resumable.

    python scripts/attack_certificates.py --images 104 --results build/attacks.jsonl --out docs/attacks.md --force
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attack_toys import toy_lines
from torch_twin import Twin, checked_twin

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.files import check_free
from dualsmooth.runtime.noise.streams import Seed, add_noise
from dualsmooth.runtime.statistics.bounds import lower_bound, upper_bound
from dualsmooth.runtime.statistics.votes import Stream

CLAIMS = ("route", "label", "decision")
INSIDE = 0.999
CONTROLS = (2.0, 4.0)
LEVEL = 1e-6
"""Failure probability of the bounds that prove a break, of one attack together."""
SUSPECT, PROOF = 500, 20_000
"""Votes that raise a suspicion, and those that then prove it (fresh ones)."""
FLOOR = 1e-4

Image = npt.NDArray[np.float32]
Gain = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Networks:
    """A smoother, and the differentiable twins of its base models."""

    smoother: ds.Smoother
    estimator: Twin
    classifiers: tuple[Twin, ...]

    @classmethod
    def of(cls, smoother: ds.Smoother) -> Networks:
        bundle = smoother.bundle
        twins = {m: checked_twin(smoother, m, len(bundle.classes)) for m in dict.fromkeys(bundle.classifiers)}
        estimator = checked_twin(smoother, bundle.estimator, len(bundle.sigmas))
        return cls(smoother, estimator, tuple(twins[m] for m in bundle.classifiers))

    def shares(self, level: int | None, noisy: torch.Tensor) -> torch.Tensor:
        """Mean softmax [width] of a classifier (or of the estimator) over noisy copies: what votes are a step of."""
        twin = self.estimator if level is None else self.classifiers[level]
        return torch.softmax(twin(noisy), 1).mean(0)

    def votes(self, level: int | None, image: Image, count: int, seed: Seed) -> npt.NDArray[np.int64]:
        """Votes [width] of the deployed network on `count` noisy copies of `image`."""
        b = self.smoother.bundle
        model: BaseModel = b.estimator if level is None else b.classifiers[level]
        sigma, width = (b.sigma_e, len(b.sigmas)) if level is None else (b.sigmas[level], len(b.classes))
        generator = seed.generator(Stream("estimator" if level is None else "classifier", level or 0, "prediction"))
        counts = np.zeros(width, np.int64)
        for start in range(0, count, 250):
            batch = np.empty((min(250, count - start), *image.shape), np.float32)
            add_noise(generator, image, sigma, batch)
            counts += np.bincount(self.smoother.engine.votes(model, batch, sigma, width), minlength=width)
        return counts


@dataclass(frozen=True)
class Attack:
    """Steps of normalised gradient ascent, and noisy copies of which each gradient is the average."""

    steps: int = 12
    samples: int = 20

    def run(
        self, networks: Networks, image: Image, radius: float, gains: list[tuple[int | None, Gain]], seed: int
    ) -> Image:
        """An input within `radius` (L2) of `image` that makes the sum of the gains large. Each gain is a function of
        the soft vote shares of one network: level, or None for the estimator."""
        bundle = networks.smoother.bundle
        generator = torch.Generator().manual_seed(seed)
        clean = torch.from_numpy(image)
        change = torch.randn(image.shape, generator=generator)
        change *= 0.05 * radius / change.norm()
        velocity = torch.zeros_like(clean)
        for _ in range(self.steps):
            change.requires_grad_(True)
            total = torch.zeros(())
            for level, gain in gains:
                sigma = bundle.sigma_e if level is None else bundle.sigmas[level]
                noise = sigma * torch.randn((self.samples, *image.shape), generator=generator)
                total = total + gain(networks.shares(level, clean + change + noise))
            (gradient,) = torch.autograd.grad(total, change)
            velocity = 0.5 * velocity + gradient / gradient.norm().clamp_min(1e-12)
            with torch.no_grad():
                change = change + 2.5 * radius / self.steps * velocity / velocity.norm().clamp_min(1e-12)
                change = change * (radius / change.norm().clamp_min(radius))
        return inside(image, np.asarray(change.detach().numpy(), np.float64), radius)


def inside(image: Image, change: npt.NDArray[np.float64], radius: float) -> Image:
    """image + change, after rounding to float32 still within `radius`."""
    for shrink in (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4):
        moved = (image + shrink * change).astype(np.float32)
        if float(np.linalg.norm(moved.astype(np.float64) - image)) <= radius:
            return moved
    raise AssertionError("rounding moved the attack out of the ball")


def towards(level: int, count: int) -> Gain:
    """Reward for the median route `level` of `count`: F_(level-1) below and F_level above 1/2."""

    def gain(shares: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        if level > 0:
            total = total + shares[level:].sum().clamp_min(FLOOR).log()
        if level < count - 1:
            total = total + shares[: level + 1].sum().clamp_min(FLOOR).log()
        return total

    return gain


def away_from(label: int) -> Gain:
    return lambda shares: (1 - shares[label]).clamp_min(FLOOR).log()


def proven_route(votes: npt.NDArray[np.int64], alpha: float) -> int | None:
    """The median route, if the votes prove it: all bounds together fail with probability at most alpha."""
    n, cumulative = votes.sum(), np.cumsum(votes)[:-1]
    share = alpha / max(1, 2 * len(cumulative))
    above, below = lower_bound(cumulative, n, share) >= 0.5, upper_bound(cumulative, n, share) < 0.5
    return int(below.sum()) if bool((above | below).all()) else None


def lost_half(votes: npt.NDArray[np.int64], label: int, alpha: float) -> bool:
    """Whether the votes prove that fewer than half of all noisy copies are given `label`."""
    return bool(upper_bound(votes[label], votes.sum(), alpha) < 0.5)


def changed(votes: npt.NDArray[np.int64], label: int, alpha: float) -> bool:
    """Whether the votes prove that some class is more probable than `label`."""
    n, top = votes.sum(), np.delete(votes, label).max()
    return bool(lower_bound(top, n, alpha / len(votes)) > upper_bound(votes[label], n, alpha / len(votes)))


def verdict(
    networks: Networks, claim: str, image: Image, certificate: ds.Certificate, seed: Seed, count: int
) -> dict[str, bool]:
    """What `count` votes of each stage prove at an attacked input: `half` is lost, the decision is `changed`."""
    route, label = certificate.outcome.route, certificate.outcome.guess
    at: int | None = route
    if claim != "label":
        at = proven_route(networks.votes(None, image, count, seed), LEVEL / 2)
        if claim == "route":
            moved = at is not None and at != route
            return {"half": moved, "changed": moved}
    if at is None:
        return {"half": False, "changed": False}
    votes = networks.votes(at, image, count, seed)
    return {"half": lost_half(votes, label, LEVEL / 2), "changed": changed(votes, label, LEVEL / 2)}


def suspected(networks: Networks, claim: str, image: Image, certificate: ds.Certificate, seed: Seed) -> bool:
    """Whether the claim looks broken on a few votes, proof or not."""
    route, label = certificate.outcome.route, certificate.outcome.guess
    if claim != "label":
        votes = networks.votes(None, image, SUSPECT, seed)
        found = int(np.argmax(2 * np.cumsum(votes) >= votes.sum()))
        if claim == "route":
            return found != route
        route = found
    votes = networks.votes(route, image, SUSPECT, seed)
    return bool(2 * votes[label] < votes.sum())


def targets(claim: str, certificate: ds.Certificate) -> tuple[float, list[tuple[int | None, Gain]]]:
    """The radius of a claim, and what an attack on it rewards."""
    out, count = certificate.outcome, len(certificate.terms.sigmas)
    others = [s for s in range(count) if s != out.route]
    near = min(others, key=lambda s: out.exclusion[s])
    if claim == "route":
        return out.route_radius, [(None, towards(near, count))]
    if claim == "label":
        return out.class_radius, [(out.route, away_from(out.guess))]
    weak = min(others, key=lambda s: max(out.exclusion[s], out.class_radii[s]))
    return out.radius, [(None, towards(weak, count)), (weak, away_from(out.guess))]


def attack_image(networks: Networks, index: int, pixels: Image, attack: Attack, n: int, seed: int) -> dict[str, Any]:
    """One row of the results: the certificate's radii, and what became of each claim at each multiple of its radius."""
    (certificate,) = networks.smoother.certify_many([pixels], budget=ds.Fixed(n), seed=seed, indices=[index])
    row: dict[str, Any] = {"index": index, "radius": certificate.radius, "claims": {}}
    for number, claim in enumerate(CLAIMS):
        radius, gains = targets(claim, certificate)
        if radius <= 0 or math.isinf(radius):
            continue
        row["claims"][claim] = {"radius": radius}
        for step, factor in enumerate((INSIDE, *CONTROLS)):
            fresh = Seed(seed, (index + 1) << 20 | number << 10 | step << 1)
            moved = attack.run(networks, pixels, factor * radius, gains, seed=index << 8 | number << 4 | step)
            found = {"half": False, "changed": False}
            if suspected(networks, claim, moved, certificate, fresh):
                count = PROOF if factor == INSIDE else 2 * SUSPECT
                found = verdict(networks, claim, moved, certificate, fresh.at(fresh.index + 1), count)
            row["claims"][claim][f"{factor:g}"] = found
    return row


def read_rows(path: Path, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Rows of an earlier run with the same settings, by image."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    if any(row["settings"] != settings for row in rows):
        raise ds.InputError(f"{path} holds attacks with other settings; choose another --results")
    return {row["index"]: row for row in rows}


def counts(rows: list[dict[str, Any]], claim: str, factor: float) -> Iterator[int]:
    """Attacked, lost half, changed."""
    found = [row["claims"][claim][f"{factor:g}"] for row in rows if claim in row["claims"]]
    yield len(found)
    yield sum(f["half"] for f in found)
    yield sum(f["changed"] for f in found)


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| claim | attacked at | attacks | label below half | broken |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for factor in (INSIDE, *CONTROLS):
        for claim in CLAIMS:
            cells = " | ".join(map(str, counts(rows, claim, factor)))
            lines.append(f"| {claim} | {factor:g} of its radius | {cells} |")
    return lines


TEXT = """# Attacks on certificates

Written by `{command}`. {machine}

## The shipped bundle

{count} Fashion-MNIST test images (every {step}th from 0, all below 8,000), certified with `Fixed({n})`, alpha = 0.001,
interval rule: {certified} have a radius above 0 (median {median:.2f}). Each claim of a certificate is attacked by
gradient ascent on the smoothed networks ({steps} steps in L2, each gradient an average over {samples} noisy copies,
through a PyTorch twin of the deployed files), inside its radius and, as a control, beyond it:

- **route**: within the route radius the route stays. Attacked by pushing the estimator to the nearest other level.
- **label**: within the class radius the classifier at the route keeps the label.
- **decision**: within the radius the dual classifier keeps the label. Attacked at both stages at once: the route is
  pushed to the weakest other level, and that level's classifier away from the label.

**Broken** means proved by votes of the deployed files at the attacked input, exact Clopper–Pearson bounds at {level:g}:
the route is another one, or another class (at the route, for a decision) is more probable than the label. The column
before says how often the label is proved to have fewer than half of the votes, which a certificate need not prevent
where no other class comes close. An attack that looks like a break on {suspect} votes is examined with {proof:,} fresh
ones inside the radius, {control:,} outside.

{table}

Inside the radius {broken} claims were broken. The controls show that the attack works: a certificate that states twice
or four times its radius is broken as often as the rows of that factor say.

## Exhaustive search on toys

{toys}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--images", type=int, default=104)
    parser.add_argument("--step", type=int, default=64, help="every STEP-th test image, below 8000")
    parser.add_argument("--passes", type=int, default=2000, help="N of a certificate")
    parser.add_argument("--steps", type=int, default=Attack.steps)
    parser.add_argument("--samples", type=int, default=Attack.samples)
    parser.add_argument("--toys", type=int, default=400, help="random toy networks for the exhaustive search")
    parser.add_argument("--results", type=Path, default=Path("build/attacks.jsonl"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--out", type=Path, help="write the table here (default: standard output)")
    parser.add_argument("--force", action="store_true", help="write over --out")
    args = parser.parse_args()
    if args.out:
        check_free(args.out, args.force)
    torch.set_num_threads(args.threads)
    smoother = ds.load(args.bundle, threads=args.threads)
    dataset, attack = load_dataset("fashion-mnist"), Attack(args.steps, args.samples)
    settings = {"bundle": smoother.bundle.manifest_sha256, "passes": args.passes, "seed": args.seed, **vars(attack)}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    done, networks = read_rows(args.results, settings), Networks.of(smoother)
    indices = range(0, 8000, args.step)[: args.images]
    with open(args.results, "a", encoding="utf-8") as file:
        for index in indices:
            if index in done:
                continue
            pixels = smoother.check_image(dataset.images[index])
            row = {**attack_image(networks, index, pixels, attack, args.passes, args.seed), "settings": settings}
            done[index] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            inside = [c[f"{INSIDE:g}"] for c in row["claims"].values()]
            print(
                f"{len(done)}/{len(indices)}: {sum(f['changed'] for f in inside)} broken", file=sys.stderr, flush=True
            )
    rows = [done[index] for index in indices]
    radii = [row["radius"] for row in rows if row["radius"] > 0]
    text = TEXT.format(
        command=f"python scripts/attack_certificates.py --images {args.images}", machine=f"{platform.machine()} CPU.",
        count=len(rows), step=args.step, n=args.passes, certified=len(radii), median=float(np.median(radii or [0])),
        steps=attack.steps, samples=attack.samples, level=LEVEL, suspect=SUSPECT, proof=PROOF, control=2 * SUSPECT,
        table="\n".join(table(rows)), broken=sum(list(counts(rows, c, INSIDE))[2] for c in CLAIMS),
        toys="\n".join(toy_lines(args.toys, args.seed)),
    )  # fmt: skip
    if args.out:
        args.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
