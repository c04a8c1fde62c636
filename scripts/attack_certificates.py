"""Tries to break certificates: projected gradient descent on the smoothed networks, inside the certified radius.

Every image is certified by the interval rule and by the cascade of sure votes, then each claim of these certificates is
attacked at 0.999 of its radius, and, as a control, well beyond it:

- route: within `route_radius` the route stays; the attack pushes the estimator's votes to the nearest other level
- label: within `class_radius` the classifier at the route's level keeps the label; the attack pushes it away
- decision: within `radius` the dual classifier keeps the label; the attack pushes the route to another level *and*
  that level's classifier away from the label
- cascade: within its own radius the cascade of sure votes keeps its label; the attack pushes the level that answers and
  the weakest one away from it

Gradients are averages over noise (expectation over transformation; SmoothAdv of Salman et al. 2019) through a PyTorch
twin of the deployed networks. A claim counts as broken only where votes of the deployed networks at the attacked input
prove it: exact Clopper-Pearson at 1e-6. Attacked inputs may leave [0, 1], as the claims cover them too. Resumable.

    python scripts/attack_certificates.py --out docs/attacks.md --force
    python scripts/attack_certificates.py --study cifar10 --images 50 --step 100 --out docs/attacks.md --force
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attack_toys import toy_lines
from compare_rules import CHOSEN, STUDIES
from frame import Measurements, add_page, machine, parsed, publish_part, say
from gradient_attack import Attack, Gain, Image, Networks, away_from, towards

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.bounds import lower_bound, upper_bound
from dualsmooth.runtime.statistics.rules.sure import Sure

CLAIMS = ("route", "label", "decision", "cascade")
INSIDE = 0.999
CONTROLS = (2.0, 4.0)
LEVEL = 1e-6
"""Failure probability of the bounds that prove a break, of one attack together."""
SUSPECT, PROOF = 500, 20_000
"""Votes that raise a suspicion, and those that then prove it (fresh ones)."""


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


def proven_answer(votes: Callable[[int], npt.NDArray[np.int64]], levels: int, rule: Sure, alpha: float) -> int | None:
    """What the cascade answers, if `votes(level)` [classes + 1], sure ones and last the others, prove it: all bounds
    together fail with probability at most alpha. The smallest level counts all its votes as sure."""
    for level in reversed(range(levels)):
        counts = votes(level)
        share = alpha / (2 * levels * len(counts))
        low, high = (bound(counts, counts.sum(), share)[:-1] for bound in (lower_bound, upper_bound))
        top = int(counts[:-1].argmax())
        if level > 0 and high.max() < rule.least_at(level):
            continue
        answers = level == 0 or low[top] >= rule.least_at(level)
        return top if answers and low[top] > np.delete(high, top).max() else None
    return None


def verdict(
    networks: Networks, claim: str, image: Image, certificate: ds.Certificate, seed: Seed, count: int
) -> dict[str, bool]:
    """What `count` votes of each stage prove at an attacked input: `half` is lost, the decision is `changed`."""
    route, label = certificate.outcome.route, certificate.outcome.guess
    if isinstance(rule := certificate.terms.rule, Sure):
        levels = len(certificate.terms.sigmas)
        answer = proven_answer(lambda level: networks.sure_votes(level, image, count, seed), levels, rule, LEVEL)
        return dict.fromkeys(("half", "changed"), answer not in (None, label))
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
    if isinstance(rule := certificate.terms.rule, Sure):
        for level in reversed(range(len(certificate.terms.sigmas))):
            sure = networks.sure_votes(level, image, SUSPECT, seed)[:-1]
            if level == 0 or sure.max() >= rule.least_at(level) * SUSPECT:
                return bool(sure.argmax() != label)
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
    if claim == "cascade":
        reach = [max(e, a) for e, a in zip(out.exclusion, out.class_radii, strict=True)]
        weak = min(range(count), key=lambda s: reach[s])
        return out.radius, [(s, away_from(out.guess)) for s in sorted({weak, out.route})]
    if claim == "route":
        return out.route_radius, [(None, towards(near, count))]
    if claim == "label":
        return out.class_radius, [(out.route, away_from(out.guess))]
    weak = min(others, key=lambda s: max(out.exclusion[s], out.class_radii[s]))
    return out.radius, [(None, towards(weak, count)), (weak, away_from(out.guess))]


def attack_image(networks: Networks, index: int, pixels: Image, attack: Attack, n: int, seed: int) -> dict[str, Any]:
    """One row of the results: the certificate's radii, and what became of each claim at each multiple of its radius."""
    certificates = {
        rule: next(networks.smoother.certify_many([pixels], budget=ds.Fixed(n), rule=rule, seed=seed, indices=[index]))
        for rule in ("interval", CHOSEN)
    }
    row: dict[str, Any] = {"index": index, "radius": certificates["interval"].radius, "claims": {}}
    for number, claim in enumerate(CLAIMS):
        certificate = certificates[CHOSEN if claim == "cascade" else "interval"]
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


HEAD = """# Attacks on certificates

Certificates of the bundles that ship, attacked with gradients: a claim that broke inside its radius would be a fault of
the theory or of the code. None may; the controls, well beyond the radius, show that the attack works. Each part is
written by the command that it names.

Each claim of a certificate is attacked by gradient ascent on the smoothed networks, through a PyTorch twin of the
deployed files, inside its radius and, as a control, beyond it:

- **route**: within the route radius the route stays. Attacked by pushing the estimator to the nearest other level.
- **label**: within the class radius the classifier at the route keeps the label.
- **decision**: within the radius the dual classifier keeps the label. Attacked at both stages at once: the route is
  pushed to the weakest other level, and that level's classifier away from the label.
- **cascade**: of a certificate by `{chosen}`, within whose radius the cascade of sure votes keeps the label. The level
  that answers and the weakest one are pushed away from it.

**Broken** means proved by votes of the deployed files at the attacked input, exact Clopper–Pearson bounds at {level:g}:
the route is another one, another class (at the route, for a decision) is more probable than the label, or the cascade
answers another one. The column before says how often the label is proved to have fewer than half of the votes (for a
cascade: as broken), which a certificate need not prevent where no other class comes close. An attack that looks like a
break on {suspect} votes is examined with {proof:,} fresh ones inside the radius, {control:,} outside.
"""
SECTION = """`{command}`; {machine}.
{count} test images ({first}, {second}, …), bundle `{bundle}` ({precision}), certified with `Fixed({n})`, alpha = 0.001,
interval rule: {certified} have a radius above 0 (median {median:.2f}). {steps} steps in L2, each gradient an average
over {samples} noisy copies.

{table}

Inside the radius {broken} claims were broken. A certificate that states twice or four times its radius is broken as
often as the rows of that factor say.
"""
TOYS = "Exhaustive search on toys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--study", choices=STUDIES, default="fashion-mnist", help="the bundle that ships, and its images"
    )
    parser.add_argument("--images", type=int, default=104)
    parser.add_argument("--step", type=int, default=64, help="every STEP-th test image")
    parser.add_argument("--passes", type=int, default=2000, help="N of a certificate")
    parser.add_argument("--steps", type=int, default=Attack.steps)
    parser.add_argument("--samples", type=int, default=Attack.samples)
    parser.add_argument("--toys", type=int, default=400, help="random toy networks for the exhaustive search")
    parser.add_argument("--results", type=Path, help="default: build/attacks-STUDY.jsonl")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20261124)
    add_page(parser)
    args = parsed(parser)
    torch.set_num_threads(args.threads)
    study = STUDIES[args.study]
    smoother = ds.load(study.bundle, threads=args.threads)
    dataset, attack = load_dataset(study.data), Attack(args.steps, args.samples)
    settings = {"bundle": smoother.bundle.manifest_sha256, "passes": args.passes, "seed": args.seed, **vars(attack)}
    results = args.results or Path(f"build/attacks-{args.study}.jsonl")
    done, networks = Measurements(results, "index", settings), Networks.of(smoother)
    indices = range(0, study.images.stop, args.step)[: args.images]
    for index in indices:
        if index not in done:
            pixels = smoother.check_image(dataset.images[index])
            done.add(attack_image(networks, index, pixels, attack, args.passes, args.seed))
            broken = sum(claim[f"{INSIDE:g}"]["changed"] for claim in done.rows[index]["claims"].values())
            say(f"{len(done)}/{len(indices)}: {broken} broken")
    found = section([done.rows[index] for index in indices], indices, smoother.bundle, attack, args)
    parts = {study.title: found, TOYS: "\n".join(toy_lines(args.toys, args.seed))}
    head = HEAD.format(chosen=CHOSEN, level=LEVEL, suspect=SUSPECT, proof=PROOF, control=2 * SUSPECT)
    publish_part(head, parts, [*(each.title for each in STUDIES.values()), TOYS], args.page)


def section(
    rows: list[dict[str, Any]], indices: range, bundle: ds.Bundle, attack: Attack, args: argparse.Namespace
) -> str:
    """What became of one bundle, from the rows of all images."""
    radii = [row["radius"] for row in rows if row["radius"] > 0]
    return SECTION.format(
        command=f"python scripts/attack_certificates.py --study {args.study} --images {args.images} --step {args.step}",
        machine=machine("onnxruntime", "torch"), bundle=args.study, precision=bundle.precision,
        count=len(rows), first=indices[0], second=args.step, n=args.passes,
        certified=len(radii), median=float(np.median(radii or [0])), steps=attack.steps, samples=attack.samples,
        table="\n".join(table(rows)), broken=sum(list(counts(rows, c, INSIDE))[2] for c in CLAIMS),
    ).strip()  # fmt: skip


if __name__ == "__main__":
    main()
