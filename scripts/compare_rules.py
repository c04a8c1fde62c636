"""Certified accuracy of every rule on the same votes, for each bundle that ships: docs/rules.md.

The page is made of the committed votes and needs no passes. To draw votes again (every level sampled in full, 40,000
passes an image; resumable):

    python scripts/compare_rules.py --page docs/rules.md --force
    python scripts/compare_rules.py --draw fashion-mnist --results build/fashion-mnist-all-levels.jsonl
    python scripts/compare_rules.py --draw cifar10 --results build/cifar10-all-levels.jsonl --provider openvino
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from frame import RESULTS, USABLE, VOTES, add_page, every, parsed, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import DATA
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import certified_radii, expand_rules, recomputed
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report import markdown_table
from dualsmooth.runtime.statistics.accuracy import RADII, certified_accuracy
from dualsmooth.runtime.statistics.bounds import Array

RULES = ("single", "oracle", "multiscale", "confidence", "paper", "interval", "fallback")
CHOSEN = "sure:0.3"
"""The rule that the bundles' `sure` was chosen with (sure_table.py)."""
POINTS = (CHOSEN, "interval", "fallback:0.5/0.7")
"""What stands beside published rows."""
SHARES = ("0.4", "0.5", "0.5/0.7", "0.6", "0.7", "0.8", "0.9")
CONFIDENCE, FALLBACK = (tuple(f"{kind}:{p}" for p in SHARES) for kind in ("confidence", "fallback"))
SURE = tuple(f"sure:{p}" for p in ("0.15", "0.2", "0.25", "0.3", "0.4", "0.5"))


@dataclass(frozen=True)
class Study:
    """A bundle, the test images that it is measured on, and what others published for them."""

    title: str
    bundle: Path
    data: str
    images: range
    votes: Path
    radii: tuple[float, ...]
    published: dict[str, tuple[float, ...]]
    objective: str
    """What its classifiers were trained for."""
    others: dict[str, Path]
    """Votes of other classifiers for the same images, by what sets these apart."""
    note: str = ""


STUDIES = {
    "cifar10": Study(
        "CIFAR-10-JPEG",
        DATA / "cifar10",
        "npz:build/cifar10/test.npz",
        range(0, 5000, 10),
        RESULTS / "cifar10-all-levels.jsonl",
        tuple(k / 4 for k in range(11)),
        {
            "Dual RS (Sun et al. 2026)": (70.5, 57.5, 45.3, 34.2, 24.7, 17.8, 12.5, 8.8, 6.7, 4.7, 3.1),
            "Gaussian, ResNet-110, best sigma at each radius": (
                80.2, 66.2, 49.3, 33.6, 23.2, 17.7, 13.1, 8.8, 5.9, 3.4, 1.8,
            ),
            "CAT-RS, ResNet-110, best sigma at each radius": (
                76.1, 67.8, 58.2, 45.4, 37.8, 31.4, 24.4, 21.4, 18.7, 15.9, 12.9,
            ),
        },
        "consistency, and at sigma = 1 gently reweighted; two networks a level",
        {
            "the first of the two alone": RESULTS / "cifar10-one-network.jsonl",
            "consistency at every level": RESULTS / "cifar10-consistency.jsonl",
            "reweighted above 0.25, 6 epochs each": RESULTS / "cifar10-reweighted.jsonl",
        },
        "The images are JPEG copies of CIFAR-10, which moves each by 1.7 (L2, median): published rows are of the "
        "originals, of other networks and, but for Dual RS, of N = 100,000 or its equivalent. No single classifier has "
        "the rows of a best sigma.",
    ),
    "fashion-mnist": Study(
        "Fashion-MNIST",
        DATA / "fashion-mnist",
        "fashion-mnist",
        range(0, USABLE, 16),
        VOTES,
        RADII,
        {},
        "consistency",
        {"gaussian": RESULTS / "fashion-mnist-gaussian-experts.jsonl"},
    ),
}  # fmt: skip

PAGE = """# Rules on the same votes

What each rule certifies from the *same votes* of the *same networks*: rows differ in nothing but the rule. A cell is
the share of test images (in %) whose label is right and certified at L2 radius r or more; ACR is the mean certified
radius, wrong and abstained images counting 0, "mean" the mean over the radii shown. N votes of every stage and level,
alpha = 0.001. Written by `python scripts/compare_rules.py` from the committed votes.

`single` rows are classifiers trained for that level alone. `multiscale` is the cascade of Jeong & Shin (2023),
`confidence:0.5` the same with the certificate of [theorem 10](mathematics.md), `sure:0.3` that one of votes in which
the network is sure ([sure.md](sure.md)); none of them asks a router. `fallback:0.5` begins at the router's level.
`oracle` picks the best sigma of each image with its label known: the limit of routing, which no one can issue. The
*envelope* is the best single sigma at each radius, which no single classifier reaches everywhere.

{studies}
"""
SECTION = """## {title}

{count} test images ({first}, {second}, … {last}), the bundle `{name}` that ships, N = {passes:,}.{note}

{table}
{published}
The router of the interval rule sends images to {levels}.

### Several points between small and large radii

The route need not be the median: `route="quantile:Q"` is the smallest level below which at least Q of the estimator's
votes lie. Each is a dual classifier of its own, certified by the same theorem; none needs training. `dualsmooth report
… --rule frontier` draws them.

{frontier}

So does `confidence:P`, which asks no router: the largest sigma at which a class has the share P of the votes answers
(`0.5/0.7`: .5 at the second smallest sigma, .7 at the largest).

{confidence}

`sure:P` counts sure votes only, above the smallest level; from which softmax on a vote is sure was chosen on validation
images ([sure.md](sure.md)):

{sure}

`fallback:P` begins at the router's level in place of the largest ([theorem 11](mathematics.md)):

{fallback}

### Against the envelope

Differences in points, each with the 95 % interval of a paired bootstrap over the images (the best sigma chosen anew in
each resample).

{envelope}

{objectives}
### What limits the interval rule

Images (in points) that the envelope's sigma certifies at r and the interval rule does not, by reason: the classifier at
the chosen level does not certify the label at r (wrong level), or it does, and the router does not (route radius); and
those that the interval rule certifies and the envelope's sigma does not.

{limits}
"""
OBJECTIVES = """### Objective and rule

The bundle's classifiers: {objective}. Others, of the same architecture, N and alpha, are named after what sets them
apart (votes: {files}); all on the {count} images of theirs:

{table}

The bundle's interval rule against the envelope of those others:

{envelope}
"""


def against_envelope(
    results: list[Result], rule: str, rivals: list[Result], at: Sequence[float], named: str = "", resamples: int = 4_000
) -> str:
    """Certified accuracy of `rule` minus that of the envelope of `rivals`, the best single sigma at each radius, in
    points. `rivals` are the same results, or those of other classifiers on the same images.

    Each with the 95 % interval of a paired bootstrap: images are resampled, the best sigma of each radius anew.
    """
    sigmas = rivals[0].certificate.terms.sigmas
    radii = [certified_radii(rivals, rule=name) for name in expand_rules(["single"], sigmas)]
    radii.append(certified_radii(results, rule=rule))
    *singles, ours = (np.stack([(r >= x) & (r > 0) for x in at]).astype(np.float64) for r in radii)
    draws = np.random.default_rng(0).multinomial(len(results), np.full(len(results), 1 / len(results)), resamples)
    weights = np.vstack([np.ones(len(results)), draws]).T / len(results)
    envelope = np.max([single @ weights for single in singles], axis=0)
    difference = 100 * (ours @ weights - envelope)
    low, high = np.percentile(difference[:, 1:], [2.5, 97.5], axis=1)
    cells = [f"{d:+.1f} ({a:+.1f} … {b:+.1f})" for d, a, b in zip(difference[:, 0], low, high, strict=True)]
    return _row(f"{rule} - envelope{named and f' of {named}'}", cells)


def what_limits(results: list[Result], at: Sequence[float]) -> str:
    """Where the interval rule loses to the envelope's single sigma: images that this sigma certifies at r and the
    interval rule does not (in points), by reason, and those that it wins."""
    sigmas = results[0].certificate.terms.sigmas
    outcomes = [result.certificate.recompute(rule="interval").outcome for result in results]
    right = np.array([o.label == r.true_label for o, r in zip(outcomes, results, strict=True)])
    radius = np.where(right, [o.radius for o in outcomes], -1.0)
    reach = np.where(right, [o.class_radius for o in outcomes], -1.0)
    singles = np.stack([certified_radii(results, rule=name) for name in expand_rules(["single"], sigmas)])
    rows: dict[str, list[float]] = {"won": [], "lost: wrong level": [], "lost: route radius": []}
    for r in (max(r, 1e-9) for r in at):
        best = singles[int(np.argmax((singles >= r).mean(axis=1)))] >= r
        lost = best & (radius < r)
        rows["won"].append(float((~best & (radius >= r)).mean()))
        rows["lost: wrong level"].append(-float((lost & (reach < r)).mean()))
        rows["lost: route radius"].append(-float((lost & (reach >= r)).mean()))
    return "\n".join(_row(name, [f"{100 * v:+.1f}" for v in values]) for name, values in rows.items())


def levels_used(results: list[Result]) -> str:
    """The share of images at each level, as the interval rule guesses the median route."""
    terms = results[0].certificate.terms
    used = [result.certificate.recompute(rule="interval").outcome.route for result in results]
    shares = np.bincount(used, minlength=len(terms.sigmas)) / len(results)
    return ", ".join(f"sigma {s:g} for {100 * share:.1f} %" for s, share in zip(terms.sigmas, shares, strict=True))


def _head(at: Sequence[float]) -> str:
    return _row("at r =", [f"{r:g}" for r in at]) + "\n| --- |" + " ---: |" * len(at)


def _row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


def curves_of(results: list[Result], rules: Sequence[str]) -> dict[str, Array]:
    """The certified radii [N] of each rule, by name."""
    sigmas = results[0].certificate.terms.sigmas
    return {rule: certified_radii(results, rule=rule) for rule in expand_rules(rules, sigmas)}


def published_table(study: Study, curves: dict[str, Array]) -> str:
    """Rows of this bundle beside published ones, for its curves by rule."""
    if not study.published:
        return ""
    ours = {name: certified_accuracy(curves[name], study.radii) for name in POINTS}
    rows = [_row(f"{study.title}, ours: {name}", [f"{100 * a:.1f}" for a in row]) for name, row in ours.items()]
    known = [(f"CIFAR-10, published: {name}", row) for name, row in study.published.items()]
    rows += [_row(name, [f"{a:.1f}" for a in row]) for name, row in known]
    return "\n".join(["", _head(study.radii), *rows, ""])


def section(study: Study, results: list[Result]) -> str:
    """The tables of one study."""
    curves = curves_of(results, (*RULES, CHOSEN))
    curves["interval, mode route"] = np.array(
        [r.correct_radius for r in recomputed(results, rule="interval", route="mode")]
    )
    confidence, sure, fallback = (curves_of(results, rules) for rules in (CONFIDENCE, SURE, FALLBACK))
    envelope = [against_envelope(results, rule, results, study.radii) for rule in ("paper", "interval", CHOSEN)]
    return SECTION.format(
        title=study.title, count=len(results), first=study.images[0], second=study.images[1], last=study.images[-1],
        name=study.bundle.name, passes=fixed_passes(results),
        note=f" {study.note}" if study.note else "",
        table=table_of(curves, study.radii),
        published=published_table(study, curves | fallback),
        levels=levels_used(results),
        frontier=table_of(curves_of(results, ["frontier"]), study.radii),
        confidence=table_of(confidence, study.radii),
        sure=table_of(sure, study.radii),
        fallback=table_of(fallback, study.radii),
        envelope="\n".join([_head(study.radii), *envelope]),
        objectives=objectives_of(study, results),
        limits=f"{_head(study.radii)}\n{what_limits(results, study.radii)}",
    )  # fmt: skip


def fixed_passes(results: list[Result]) -> int:
    """N of the one fixed budget that all results were made with; `InputError` for others."""
    budgets = {result.certificate.terms.budget for result in results}
    budget = next(iter(budgets))
    if len(budgets) > 1 or not isinstance(budget, ds.Fixed):
        raise InputError(f"the results were made with {len(budgets)} budgets, {budget} first; expected one, fixed:N")
    return budget.n


def objectives_of(study: Study, results: list[Result]) -> str:
    """Objective x rule: every rule on the votes of classifiers that were trained for something else."""
    known = {name: {r.index: r for r in load_results(path)} for name, path in study.others.items()}
    common = [r for r in results if all(r.index in others for others in known.values())]
    curves = {f"this bundle: {rule}": radii for rule, radii in curves_of(common, RULES).items()}
    envelope = []
    for objective, found in known.items():
        others = [found[result.index] for result in common]
        curves |= {f"{objective}: {rule}": radii for rule, radii in curves_of(others, RULES).items()}
        envelope.append(against_envelope(common, "interval", others, study.radii, objective))
    return OBJECTIVES.format(
        objective=study.objective, files=", ".join(path.name for path in study.others.values()), count=len(common),
        table=table_of(curves, study.radii),
        envelope="\n".join([_head(study.radii), *envelope]),
    )  # fmt: skip


def table_of(curves: dict[str, Array], at: Sequence[float]) -> str:
    """The table of certified accuracies, with the mean of each row over the radii `at` as its last column."""
    means = [f"{100 * certified_accuracy(radii, at).mean():.1f}" for radii in curves.values()]
    lines = zip(markdown_table(curves, at).splitlines(), ["mean", "---:", *means], strict=True)
    return "\n".join(f"{line} {cell} |" for line, cell in lines)


def draw(study: Study, results: Path, args: argparse.Namespace) -> None:
    """Votes of every level for the images of a study, into the results file."""
    evaluate(
        ds.load(args.bundle or study.bundle, threads=args.threads, provider=args.provider),
        load_dataset(args.dataset or study.data),
        results,
        indices=study.images,
        budget=ds.Fixed(args.passes),
        seed=args.seed,
        all_levels=True,
        progress=every(10),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", choices=STUDIES, help="draw votes for this study")
    parser.add_argument("--results", type=Path, help="into this results file, made or resumed")
    parser.add_argument("--bundle", type=Path, help="with this bundle (default: the one that ships)")
    parser.add_argument("--dataset", help="of this data set (default: the study's)")
    parser.add_argument("--passes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--provider", default="cpu")
    add_page(parser, "--page")
    args = parsed(parser)
    if bool(args.draw) != bool(args.results):
        raise InputError("--draw and --results go together: which votes, and where to keep them")
    if args.draw:
        draw(STUDIES[args.draw], args.results, args)
        publish(section(STUDIES[args.draw], load_results(args.results)), None)
        return
    parts = [section(study, load_results(study.votes)) for study in STUDIES.values() if study.votes.exists()]
    publish(PAGE.format(studies="\n".join(parts)), args.page)


if __name__ == "__main__":
    main()
